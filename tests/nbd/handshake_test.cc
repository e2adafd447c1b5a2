#include "nbd/handshake.h"

#include <gtest/gtest.h>

#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

namespace nbd {
namespace {

using wire::from_hex;
using wire::join;
using wire::OptionAnswer;

class HandshakeTest : public support::RingTest {
 protected:
  HandshakeTest() {
    ingest_ = add({.name = "vm1-1-disk0", .description = "first disk"});
    point_ = add({.name = "vm1/disk-0@p1", .kind = ExportKind::point, .read_only = true});
  }
  ~HandshakeTest() override {
    client_.reset();
    run(scope_.join());
    outcome_.reset();
    for (const auto& exported : all_) run(exported->join());
  }

  std::shared_ptr<Export> add(ExportSpec spec) {
    auto exported = Export::make(std::move(spec), device_, runtime());
    table_.add(exported);
    all_.push_back(exported);
    return exported;
  }

  /// Starts a handshake and takes the greeting.
  void connect(Visibility visible, uint32_t client_flags = 3) {
    client_.reset();
    run(scope_.join());
    outcome_.reset();
    dropped_.clear();
    ended_ = false;
    auto [server, client] = wire::socket_pair(ring());
    client_ = std::make_unique<wire::Client>(ring(), std::move(client));
    scope_.spawn(shake_hands(std::move(server), std::move(visible)));
    EXPECT_EQ(wire::to_hex(client_->receive(18)), "4e42444d4147494349484156454f50540003");
    Bytes flags(4);
    io::store_be(flags.data(), client_flags);
    client_->send(flags);
  }
  void connect(uint32_t client_flags = 3) {
    connect(Visibility::all(table_, default_export_), client_flags);
  }

  OptionAnswer ask(const Bytes& option) {
    client_->send(option);
    return client_->receive_answer();
  }
  OptionAnswer ask(Option option, const Bytes& data = {}) {
    return ask(wire::option(option, data));
  }
  /// All replies up to the final one.
  std::vector<OptionAnswer> ask_all(Option option, const Bytes& data = {}) {
    client_->send(wire::option(option, data));
    std::vector<OptionAnswer> answers;
    do {
      answers.push_back(client_->receive_answer());
    } while (answers.back().type != OptionReply::ack &&
             number_of(answers.back().type) < 0x80000000);
    return answers;
  }
  std::vector<OptionAnswer> go(const std::string& name, std::vector<uint16_t> wanted = {}) {
    return ask_all(Option::go, InfoRequest{name, std::move(wanted)}.encode());
  }
  void structured() { EXPECT_EQ(ask(Option::structured_reply).type, OptionReply::ack); }
  std::vector<OptionAnswer> contexts(Option option, const std::string& name,
                                     std::vector<std::string> queries) {
    return ask_all(option, MetaContextRequest{name, std::move(queries)}.encode());
  }
  static std::vector<std::string> names(const std::vector<OptionAnswer>& answers) {
    std::vector<std::string> found;
    for (const OptionAnswer& answer : answers) {
      if (answer.type == OptionReply::meta_context) {
        found.push_back(wire::to_text(std::span(answer.data).subspan(4)));
      }
    }
    return found;
  }
  /// The client can go on: the next option is answered.
  void expect_alive() { EXPECT_EQ(ask(wire::option(4711)).type, OptionReply::err_unsup); }
  /// The connection ends without another byte, for that reason.
  void expect_drop(const std::string& reason) {
    EXPECT_TRUE(client_->ends());
    run(scope_.join());
    EXPECT_EQ(dropped_, reason);
    EXPECT_FALSE(outcome_);
  }
  Negotiated& negotiated() {
    run(scope_.join());
    return outcome_.value();
  }

  HandshakeSettings settings_;
  Admission admission_;
  std::string default_export_;
  support::MemoryDevice device_{1000001};
  ExportTable table_;
  std::vector<std::shared_ptr<Export>> all_;
  std::shared_ptr<Export> ingest_, point_;
  std::unique_ptr<wire::Client> client_;
  io::TaskScope scope_;
  std::optional<Negotiated> outcome_;
  std::string dropped_;
  bool ended_ = false;

 private:
  io::Task<void> shake_hands(std::unique_ptr<io::Socket> socket, Visibility visible) {
    Handshake handshake(ring(), ring(), *socket, std::move(visible), admission_, settings_);
    try {
      outcome_ = co_await handshake.run();
    } catch (const ProtocolError& reason) {
      dropped_ = reason.what();
    }
    ended_ = true;
  }
};

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
    if (!ended_) client_->send(Bytes(1));
  }
  EXPECT_LT(ring().now() - start, std::chrono::seconds(1));
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

TEST_F(HandshakeTest, StructuredReplyMayBeAskedTwice) {  // O13
  connect();
  structured();
  structured();
  EXPECT_EQ(ask(Option::structured_reply, Bytes(1)).type, OptionReply::err_invalid);
}

TEST_F(HandshakeTest, ContextsAreListedWithAndWithoutStructuredReplies) {  // O14, M4
  connect();
  const auto answers = contexts(Option::list_meta_context, "vm1-1-disk0", {});
  EXPECT_EQ(names(answers), (std::vector<std::string>{"base:allocation", "qemu:allocation-depth"}));
  EXPECT_EQ(io::load_be<uint32_t>(answers[0].data.data()), 0u);
  structured();
  EXPECT_EQ(names(contexts(Option::list_meta_context, "vm1-1-disk0", {"base:"})),
            std::vector<std::string>{"base:allocation"});
  EXPECT_EQ(names(contexts(Option::list_meta_context, "vm1-1-disk0", {"qemu:"})),
            std::vector<std::string>{"qemu:allocation-depth"});
  EXPECT_EQ(names(contexts(Option::list_meta_context, "vm1-1-disk0", {"qemu:dirty-bitmap:"})),
            std::vector<std::string>{});
}

TEST_F(HandshakeTest, ContextsNeedStructuredReplies) {  // O15
  connect();
  const auto answers = contexts(Option::set_meta_context, "vm1-1-disk0", {"base:allocation"});
  EXPECT_EQ(answers.back().type, OptionReply::err_invalid);
  EXPECT_EQ(answers.back().text(), "structured replies must be negotiated first");
}

TEST_F(HandshakeTest, SelectedContextsHaveDistinctIds) {  // M7
  connect();
  structured();
  const auto answers = contexts(Option::set_meta_context, "vm1-1-disk0",
                                {"qemu:allocation-depth", "base:allocation", "base:allocation"});
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_NE(io::load_be<uint32_t>(answers[0].data.data()),
            io::load_be<uint32_t>(answers[1].data.data()));
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::ack);
  EXPECT_EQ(negotiated().contexts.size(), 2u);
}

TEST_F(HandshakeTest, QueriesThatNobodyKnowsAreIgnored) {  // M4, M5
  connect();
  structured();
  for (const char* query : {"base:", "qemu:", "base:nothing", "x-other:thing", "no colon", "",
                            "qemu:dirty-bitmap:since-never"}) {
    const auto answers = contexts(Option::set_meta_context, "vm1-1-disk0", {query});
    ASSERT_EQ(answers.size(), 1u) << query;
    EXPECT_EQ(answers[0].type, OptionReply::ack) << query;
  }
}

TEST_F(HandshakeTest, SetReplacesTheEarlierSetAlsoWhenItFails) {  // O15
  connect();
  structured();
  EXPECT_EQ(contexts(Option::set_meta_context, "vm1-1-disk0", {"base:allocation"}).size(), 2u);
  EXPECT_EQ(contexts(Option::set_meta_context, "nobody", {"base:allocation"}).back().type,
            OptionReply::err_unknown);
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::ack);
  EXPECT_TRUE(negotiated().contexts.empty());
}

TEST_F(HandshakeTest, ContextRequestsThatDoNotFitAreRefused) {  // M6
  connect();
  structured();
  EXPECT_EQ(ask(Option::set_meta_context, from_hex("00000001 61 00000001 00000009 62")).type,
            OptionReply::err_invalid);
  EXPECT_EQ(contexts(Option::set_meta_context, "vm1-1-disk0",
                     std::vector<std::string>(65, "base:allocation"))
                .back()
                .type,
            OptionReply::err_too_big);
  EXPECT_EQ(contexts(Option::list_meta_context, "nobody", {}).back().type,
            OptionReply::err_unknown);
}

TEST_F(HandshakeTest, ContextsOfAnotherExportAreDroppedAtGo) {  // O18
  connect();
  structured();
  EXPECT_EQ(contexts(Option::set_meta_context, "vm1/disk-0@p1", {"base:allocation"}).size(), 2u);
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::ack);
  EXPECT_TRUE(negotiated().contexts.empty());
}

TEST_F(HandshakeTest, ExtendedHeadersTakeThePlaceOfStructuredReplies) {  // O16, X-7, K2
  connect();
  EXPECT_EQ(ask(Option::extended_headers, Bytes(1)).type, OptionReply::err_invalid);
  EXPECT_EQ(ask(Option::extended_headers).type, OptionReply::ack);
  EXPECT_EQ(ask(Option::extended_headers).type, OptionReply::ack);
  EXPECT_EQ(ask(Option::structured_reply, Bytes(1)).type, OptionReply::err_invalid);
  EXPECT_EQ(ask(Option::structured_reply).type, OptionReply::err_ext_header_reqd);
  EXPECT_EQ(contexts(Option::set_meta_context, "vm1-1-disk0", {"base:allocation"}).size(), 2u);
  go("vm1-1-disk0");
  EXPECT_TRUE(negotiated().rules.extended_headers);
  EXPECT_TRUE(negotiated().rules.structured_replies);
}

TEST_F(HandshakeTest, ExtendedHeadersMayFollowStructuredReplies) {
  connect();
  structured();
  EXPECT_EQ(ask(Option::extended_headers).type, OptionReply::ack);
  go("vm1-1-disk0");
  EXPECT_TRUE(negotiated().rules.extended_headers);
}

TEST_F(HandshakeTest, ExportNameAfterExtendedHeadersDrops) {
  connect();
  EXPECT_EQ(ask(Option::extended_headers).type, OptionReply::ack);
  client_->send(wire::option(Option::export_name, wire::from_text("vm1-1-disk0")));
  EXPECT_TRUE(client_->ends());
}

TEST_F(HandshakeTest, StatusPayloadIsOfferedWithExtendedHeadersAndAContextOfThatExport) {
  const auto flags = [&](const std::string& name) {
    for (const OptionAnswer& answer : ask_all(Option::info, InfoRequest{name, {}}.encode())) {
      if (answer.type == OptionReply::info && answer.data[1] == std::byte{0}) {
        return io::load_be<uint16_t>(answer.data.data() + 10);
      }
    }
    return uint16_t{0};
  };
  connect();
  structured();
  contexts(Option::set_meta_context, "vm1-1-disk0", {"base:allocation"});
  EXPECT_EQ(flags("vm1-1-disk0"), 0x09ed);
  EXPECT_EQ(ask(Option::extended_headers).type, OptionReply::ack);
  EXPECT_EQ(flags("vm1-1-disk0"), 0x19ed);
  EXPECT_EQ(flags("vm1/disk-0@p1"), 0x018f);  // the context belongs to the other export
  contexts(Option::set_meta_context, "vm1-1-disk0", {});
  EXPECT_EQ(flags("vm1-1-disk0"), 0x09ed);
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

}  // namespace
}  // namespace nbd
