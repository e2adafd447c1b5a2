// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/handshake_fixture.h"

// What is negotiated before GO: structured replies, metadata contexts, extended headers.

namespace nbd {
namespace {

using wire::from_hex;

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

}  // namespace
}  // namespace nbd
