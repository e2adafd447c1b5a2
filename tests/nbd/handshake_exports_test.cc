// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/handshake_fixture.h"

// INFO and GO, the names of exports, and who is let in.

namespace nbd {
namespace {

using wire::from_hex;

TEST_F(HandshakeTest, InfoSaysWhatGoWillSayAndTakesNoPlace) {  // O6, Q17
  connect();
  structured();
  const InfoRequest request{"vm1-1-disk0", {1, 2, 3}};
  const auto info = ask_all(Option::info, request.encode());
  EXPECT_EQ(ingest_->counters().connections_now, 0u);
  const auto entered = ask_all(Option::go, request.encode());
  ASSERT_EQ(info.size(), entered.size());
  for (size_t index = 0; index < info.size(); ++index) {
    EXPECT_EQ(info[index].option, 6u);
    EXPECT_EQ(entered[index].option, 7u);
    EXPECT_EQ(info[index].type, entered[index].type);
    EXPECT_EQ(wire::to_hex(info[index].data), wire::to_hex(entered[index].data));
  }
}

TEST_F(HandshakeTest, GoReportsExactSizeFlagsAndBlockSizes) {  // O7, O8, B1–B4, F1, K5
  connect();
  const auto answers = go("vm1-1-disk0");
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(wire::to_hex(answers[0].data), "000000000000000f4241096d");
  EXPECT_EQ(wire::to_hex(answers[1].data),
            "0003"
            "00000001"
            "00010000"
            "02000000");
  EXPECT_EQ(answers[2].type, OptionReply::ack);
  EXPECT_EQ(&negotiated().place.exported(), ingest_.get());
  EXPECT_EQ(ingest_->counters().connections_now, 1u);
  outcome_.reset();
  EXPECT_EQ(ingest_->counters().connections_now, 0u);
}

TEST_F(HandshakeTest, FlagsDependOnKindAndStructuredReplies) {  // F1
  EXPECT_EQ(ingest_->transmission_flags({}), 0x096d);
  EXPECT_EQ(ingest_->transmission_flags({.structured_replies = true}), 0x09ed);
  EXPECT_EQ(point_->transmission_flags({}), 0x010f);
  EXPECT_EQ(point_->transmission_flags({.structured_replies = true}), 0x018f);
}

TEST_F(HandshakeTest, NameAndDescriptionAreToldWhenAsked) {  // O7, O8
  connect();
  const auto answers = go("vm1-1-disk0", {1, 2, 1, 77});
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(wire::to_hex(answers[1].data),
            wire::to_hex(encode_info_text(Info::name, "vm1-1-disk0")));
  EXPECT_EQ(wire::to_hex(answers[2].data),
            wire::to_hex(encode_info_text(Info::description, "first disk")));
}

TEST_F(HandshakeTest, CanonicalNameIsToldWhenAnAliasWasUsed) {  // O7
  table_.add_alias("vm1/disk-0@latest", point_);
  connect();
  const auto answers = go("vm1/disk-0@latest");
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_EQ(wire::to_hex(answers[1].data),
            wire::to_hex(encode_info_text(Info::name, "vm1/disk-0@p1")));
}

TEST_F(HandshakeTest, MalformedGoIsRefusedAndTheHandshakeGoesOn) {  // O7
  connect();
  for (const char* hex : {"", "00000000", "00000009 6162 0000", "00000000 0002 0003"}) {
    const OptionAnswer answer = ask(Option::go, from_hex(hex));
    EXPECT_EQ(answer.type, OptionReply::err_invalid) << hex;
    EXPECT_EQ(answer.text(), "malformed GO request");
  }
  EXPECT_EQ(ask(Option::info, {}).text(), "malformed INFO request");
  expect_alive();
}

TEST_F(HandshakeTest, UnknownNameIsSaidToBeUnknown) {  // O9, H12, Q16
  connect();
  for (const Option option : {Option::info, Option::go}) {
    const OptionAnswer answer = ask(option, InfoRequest{"nobody", {}}.encode());
    EXPECT_EQ(answer.type, OptionReply::err_unknown);
    EXPECT_EQ(answer.text(), "export \"nobody\" does not exist");
  }
  expect_alive();
}

TEST_F(HandshakeTest, EmptyNameMeansTheDefaultExportIfThereIsOne) {  // O10
  connect();
  EXPECT_EQ(go("").back().type, OptionReply::err_unknown);
  default_export_ = "vm1/disk-0@p1";
  connect();
  const auto answers = go("");
  EXPECT_EQ(answers.back().type, OptionReply::ack);
  EXPECT_EQ(&negotiated().place.exported(), point_.get());
}

TEST_F(HandshakeTest, PortOfOneExportServesThatOneOnly) {  // O10, L8
  connect(Visibility::only(ingest_));
  EXPECT_EQ(ask_all(Option::list).size(), 2u);
  EXPECT_EQ(go("vm1/disk-0@p1").back().type, OptionReply::err_unknown);
  EXPECT_EQ(go("").back().type, OptionReply::ack);
  EXPECT_EQ(&negotiated().place.exported(), ingest_.get());
}

TEST_F(HandshakeTest, FullExportSaysSo) {  // O11, X1, Q1
  add({.name = "two", .connections_max = 2});
  std::vector<Negotiated> held;
  for (int count = 0; count < 2; ++count) {
    connect();
    EXPECT_EQ(go("two").back().type, OptionReply::ack);
    held.push_back(std::move(negotiated()));
  }
  connect();
  const auto answers = go("two");
  EXPECT_EQ(answers.back().type, OptionReply::err_policy);
  EXPECT_EQ(answers.back().text(), "export \"two\" already has 2 connections (limit 2)");
  held.pop_back();
  EXPECT_EQ(go("two").back().type, OptionReply::ack);
}

TEST_F(HandshakeTest, SealedAndClosedExportsTakeNobody) {  // O12
  run(ingest_->seal());
  connect();
  const auto sealed = go("vm1-1-disk0");
  EXPECT_EQ(sealed.back().type, OptionReply::err_policy);
  EXPECT_EQ(sealed.back().text(), "export \"vm1-1-disk0\" is being sealed");
  EXPECT_EQ(ask(Option::info, InfoRequest{"vm1-1-disk0", {}}.encode()).type,
            OptionReply::err_policy);
  ingest_->close();
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::err_unknown);
}

TEST_F(HandshakeTest, DrainingServerAnswersOnlyAbort) {  // O17, X10
  connect();
  admission_.draining = true;
  for (const Option option : {Option::list, Option::go, Option::info, Option::structured_reply,
                              Option::starttls, Option{99}}) {
    const OptionAnswer answer = ask(option);
    EXPECT_EQ(answer.type, OptionReply::err_shutdown);
    EXPECT_EQ(answer.text(), "server is shutting down");
  }
  EXPECT_EQ(ask(Option::abort).type, OptionReply::ack);
}

TEST_F(HandshakeTest, FullServerSaysSo) {  // X2
  admission_.connections_max = 1;
  const AdmissionSlot other(admission_);
  connect();
  const auto answers = go("vm1-1-disk0");
  EXPECT_EQ(answers.back().type, OptionReply::err_policy);
  EXPECT_EQ(answers.back().text(), "server already has 1 connections");
  EXPECT_EQ(ingest_->counters().connections_ever, 0u);
}

TEST_F(HandshakeTest, ListIsMadeAsItLeaves) {  // O3: whoever does not read it holds little
  constexpr size_t kExports = 2000;            // some 8 MB of descriptions
  for (size_t index = 0; index < kExports; ++index) {
    add({.name = fmt::format("x{:04}", index), .description = std::string(4000, 'd')});
  }
  connect();
  EXPECT_EQ(ask_all(Option::list).size(), kExports + 3);
  client_->send(wire::option(Option::list));
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(50)));
  for (const auto& exported : all_) table_.remove(*exported);
  size_t listed = 0;
  while (client_->receive_answer().type == OptionReply::server) ++listed;
  EXPECT_GT(listed, 0u);
  EXPECT_LT(listed, kExports / 2);
  expect_alive();
}

}  // namespace
}  // namespace nbd
