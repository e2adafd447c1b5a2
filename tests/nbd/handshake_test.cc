// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/handshake_fixture.h"

// What every option has in common, and those of no export: docs/nbd-support.md, 1 and 2.

namespace nbd {
namespace {

using wire::from_hex;
using wire::join;

TEST_F(HandshakeTest, UnknownClientFlagsDrop) {  // H2, Q18
  connect(4);
  expect_drop("unknown client flags 0x4");
}

TEST_F(HandshakeTest, WrongOptionMagicDrops) {  // H2
  connect();
  client_->send(Bytes(16, std::byte{0x55}));
  expect_drop("option: wrong magic");
}

TEST_F(HandshakeTest, EndOfStreamAnywhereIsQuiet) {  // H2
  const Bytes whole = wire::option(Option::go, InfoRequest{"nobody", {3}}.encode());
  for (size_t size = 0; size < whole.size(); ++size) {
    connect();
    client_->send(Bytes(whole.begin(), whole.begin() + size));
    client_->vanish();
    run(scope_.join());
    EXPECT_EQ(dropped_, "") << size;
    EXPECT_FALSE(outcome_);
  }
}

TEST_F(HandshakeTest, ClientWithoutFixedNewstyleMayOnlyNameAnExport) {  // H3, Q18
  connect(0);
  client_->send(wire::option(Option::list));
  expect_drop("option 3 from a client without fixed newstyle");
  connect(0);
  client_->send(wire::option(Option::starttls));
  expect_drop("option 5 from a client without fixed newstyle");
}

TEST_F(HandshakeTest, ExportNameIsAnsweredWithAndWithoutPadding) {  // H4, O1
  for (const uint32_t flags : {0u, 1u, 2u, 3u}) {
    connect(flags);
    client_->send(wire::option(Option::export_name, wire::from_text("vm1-1-disk0")));
    const Bytes reply = client_->receive((flags & kNoZeroes) != 0 ? 10 : 134);
    EXPECT_EQ(wire::to_hex(std::span(reply).first(10)), "00000000000f4241096d");
    EXPECT_EQ(&negotiated().place.exported(), ingest_.get());
    EXPECT_TRUE(client_->ends());  // and not one byte more
  }
}

TEST_F(HandshakeTest, ExportNameThatCannotBeServedDrops) {  // O1, O9, O11, O12, H5
  connect();
  client_->send(wire::option(Option::export_name, wire::from_text("nobody")));
  expect_drop("export \"nobody\" does not exist");
  connect();
  client_->send(wire::option(Option::export_name, Bytes(5000, std::byte{'a'})));
  expect_drop("export name is longer than 4096 bytes");
  const auto small = add({.name = "small", .connections_max = 0});
  connect();
  client_->send(wire::option(Option::export_name, wire::from_text("small")));
  expect_drop("export \"small\" already has 0 connections (limit 0)");
  run(point_->seal());
  connect();
  client_->send(wire::option(Option::export_name, wire::from_text("vm1/disk-0@p1")));
  expect_drop("export \"vm1/disk-0@p1\" is being sealed");
  admission_.draining = true;
  connect();
  client_->send(wire::option(Option::export_name, wire::from_text("vm1-1-disk0")));
  expect_drop("EXPORT_NAME while the server is shutting down");
}

TEST_F(HandshakeTest, StringsThatAreNoTextAreRefused) {  // H5
  connect();
  const OptionAnswer answer = ask(Option::go, from_hex("00000002 c328 0000"));
  EXPECT_EQ(answer.type, OptionReply::err_invalid);
  EXPECT_EQ(answer.text(), "export name is not valid UTF-8");
  const OptionAnswer longer = ask(Option::go, InfoRequest{std::string(4097, 'a'), {}}.encode());
  EXPECT_EQ(longer.type, OptionReply::err_invalid);
  EXPECT_EQ(longer.text(), "export name is longer than 4096 bytes");
  expect_alive();
}

TEST_F(HandshakeTest, OptionAboveSixtyFourKibDropsBeforeItsData) {  // H6, Q13
  connect();
  client_->send(OptionHeader{Option::go, 65537}.encode());
  expect_drop("option length 65537 exceeds 65536");
}

TEST_F(HandshakeTest, LargestOptionIsReadInFullBeforeItIsAnswered) {  // H7, Q13
  connect();
  client_->send(OptionHeader{Option{99}, 65536}.encode());
  client_->send(Bytes(65535));
  client_->send(Bytes(1));
  EXPECT_EQ(client_->receive_answer().text(), "option 99 is not supported");
  expect_alive();
}

TEST_F(HandshakeTest, NoAnswerComesBeforeTheDataIsComplete) {  // H7
  connect();
  client_->send(OptionHeader{Option{99}, 100}.encode());
  client_->send(Bytes(99));
  EXPECT_TRUE(client_->is_quiet());
}

TEST_F(HandshakeTest, FragmentationChangesNothing) {  // H8
  const Bytes talk = join(wire::option(Option::structured_reply), wire::option(Option::list),
                          wire::option(99, Bytes(5)),
                          wire::option(Option::go, InfoRequest{"vm1-1-disk0", {3}}.encode()));
  const auto answers = [this] {
    std::vector<std::string> seen;
    for (int count = 0; count < 8; ++count) {
      const OptionAnswer answer = client_->receive_answer();
      seen.push_back(fmt::format("{} {:x} {}", answer.option, number_of(answer.type),
                                 wire::to_hex(answer.data)));
    }
    return seen;
  };
  connect();
  client_->send(talk);
  const auto at_once = answers();
  connect();
  for (const std::byte byte : talk) client_->send(Bytes{byte});
  EXPECT_EQ(answers(), at_once);
  EXPECT_TRUE(negotiated().rules.structured_replies);
}

TEST_F(HandshakeTest, TrickleOfBytesDoesNotExtendThePatience) {  // H9
  settings_.option_patience = std::chrono::milliseconds(200);
  connect();
  client_->send(OptionHeader{Option{99}, 60000}.encode());
  const io::SteadyTime start = ring().now();
  while (!ended_ && ring().now() - start < std::chrono::seconds(5)) {
    run(io::sleep(ring(), ring(), std::chrono::milliseconds(20)));
    try {
      if (!ended_) client_->send(Bytes(1));
    } catch (const std::system_error&) {
      break;  // the server has closed the socket and says so in a moment
    }
  }
  EXPECT_LT(ring().now() - start, std::chrono::seconds(3));
  expect_drop("no completed option within 0 s");
}

TEST_F(HandshakeTest, EveryCompletedOptionRenewsThePatience) {  // H9
  settings_.option_patience = std::chrono::milliseconds(300);
  connect();
  for (int count = 0; count < 5; ++count) {
    run(io::sleep(ring(), ring(), std::chrono::milliseconds(150)));
    expect_alive();
  }
}

TEST_F(HandshakeTest, TooManyOptionsDrop) {  // H10
  settings_.options_max = 5;
  connect();
  for (int count = 0; count < 5; ++count) expect_alive();
  expect_drop("more than 5 options");
}

TEST_F(HandshakeTest, AbortIsAcknowledgedAndThenTheStreamEnds) {  // O2, Q6, Q19
  connect();
  client_->send(join(wire::option(Option::abort, Bytes(3)), Bytes(1000)));
  const OptionAnswer answer = client_->receive_answer();
  EXPECT_EQ(answer.option, 2u);
  EXPECT_EQ(answer.type, OptionReply::ack);
  EXPECT_TRUE(client_->ends());
  client_->vanish();
  run(scope_.join());
  EXPECT_EQ(dropped_, "");
}

TEST_F(HandshakeTest, ListNamesEveryExportThatCanBeOpened) {  // O3, Q16
  connect();
  auto answers = ask_all(Option::list);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].type, OptionReply::server);
  EXPECT_EQ(wire::to_hex(answers[0].data),
            wire::to_hex(encode_server("vm1-1-disk0", "first disk")));
  EXPECT_EQ(wire::to_hex(answers[1].data), wire::to_hex(encode_server("vm1/disk-0@p1", "")));
  run(ingest_->seal());
  EXPECT_EQ(ask_all(Option::list).size(), 2u);
  const OptionAnswer refused = ask(Option::list, Bytes(1));
  EXPECT_EQ(refused.type, OptionReply::err_invalid);
  EXPECT_EQ(refused.text(), "LIST takes no data");
}

TEST_F(HandshakeTest, UnknownOptionsAreUnsupported) {  // O4
  connect();
  for (const uint32_t number : {0u, 4u, 12u, 0xffffffffu}) {
    const OptionAnswer answer = ask(wire::option(number, Bytes(7)));
    EXPECT_EQ(answer.option, number);
    EXPECT_EQ(answer.type, OptionReply::err_unsup);
    EXPECT_EQ(answer.text(), fmt::format("option {} is not supported", number));
  }
}

TEST_F(HandshakeTest, TlsIsRefusedWhereItIsOff) {  // O5, T1, Q20
  connect();
  const OptionAnswer with_data = ask(Option::starttls, Bytes(1));
  EXPECT_EQ(with_data.type, OptionReply::err_invalid);
  EXPECT_EQ(with_data.text(), "STARTTLS takes no data");
  const OptionAnswer answer = ask(Option::starttls);
  EXPECT_EQ(answer.type, OptionReply::err_policy);
  EXPECT_EQ(answer.text(), "TLS is disabled on this listener");
  expect_alive();
}

}  // namespace
}  // namespace nbd
