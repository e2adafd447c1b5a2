// SPDX-License-Identifier: Apache-2.0
#include "nbd/options.h"

#include <gtest/gtest.h>

#include "tests/nbd/wire.h"

namespace nbd {
namespace {

using wire::from_hex;
using wire::to_hex;

/// The text of the ProtocolError that `f` throws; "no error" when it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Options, GoRequestHasItsGoldenBytes) {  // O7
  const Bytes golden = from_hex("00000003 766d31 0002 0003 0001");
  const InfoRequest request = InfoRequest::decode(golden, "GO");
  EXPECT_EQ(request.export_name, "vm1");
  EXPECT_TRUE(request.wants(Info::block_size));
  EXPECT_TRUE(request.wants(Info::name));
  EXPECT_FALSE(request.wants(Info::description));
  EXPECT_EQ(to_hex(request.encode()), to_hex(golden));
}

TEST(Options, GoRequestMayAskForNothingOrForUnknownThings) {  // O8
  EXPECT_TRUE(InfoRequest::decode(from_hex("00000000 0000"), "GO").wanted.empty());
  const InfoRequest odd = InfoRequest::decode(from_hex("00000000 0003 0003 0003 7777"), "GO");
  EXPECT_EQ(odd.wanted.size(), 3u);
}

TEST(Options, EveryTruncationOfAGoRequestIsMalformed) {  // O7
  const Bytes whole = InfoRequest{"export", {3, 1, 2}}.encode();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::span<const std::byte> part = std::span(whole).first(size);
    EXPECT_EQ(error_of([&] { InfoRequest::decode(part, "GO"); }), "malformed GO request") << size;
  }
  Bytes longer = whole;
  longer.push_back({});
  EXPECT_EQ(error_of([&] { InfoRequest::decode(longer, "INFO"); }), "malformed INFO request");
}

TEST(Options, GoRequestWithALyingNameLengthIsMalformed) {  // O7
  for (const char* hex : {"ffffffff 61 0000", "00000002 61 0000", "00000000 61 0000"}) {
    EXPECT_EQ(error_of([&] { InfoRequest::decode(from_hex(hex), "GO"); }), "malformed GO request");
  }
}

TEST(Options, NamesThatAreNoTextAreRefused) {  // H5
  EXPECT_EQ(error_of([] { InfoRequest::decode(from_hex("00000001 ff 0000"), "GO"); }),
            "export name is not valid UTF-8");
  EXPECT_EQ(error_of([] { decode_export_name(from_hex("6100")); }), "export name contains NUL");
  EXPECT_EQ(error_of([] { decode_export_name(Bytes(4097, std::byte{'a'})); }),
            "export name is longer than 4096 bytes");
  EXPECT_EQ(decode_export_name(from_hex("6162")), "ab");
}

TEST(Options, MetaContextRequestHasItsGoldenBytes) {
  const Bytes golden = from_hex("00000001 64 00000002 00000005 626173653a 00000000");
  const MetaContextRequest request = MetaContextRequest::decode(golden);
  EXPECT_EQ(request.export_name, "d");
  EXPECT_EQ(request.queries, (std::vector<std::string>{"base:", ""}));
  EXPECT_EQ(to_hex(request.encode()), to_hex(golden));
}

TEST(Options, EveryTruncationOfAMetaContextRequestIsRefused) {  // M6
  const Bytes whole = MetaContextRequest{"export", {"base:allocation", "qemu:x"}}.encode();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(MetaContextRequest::decode(std::span(whole).first(size)), ProtocolError) << size;
  }
  Bytes longer = whole;
  longer.push_back({});
  EXPECT_THROW(MetaContextRequest::decode(longer), ProtocolError);
}

TEST(Options, MoreThanSixtyFourContextQueriesAreTooBig) {  // M6
  MetaContextRequest request{"d", std::vector<std::string>(64, "base:allocation")};
  EXPECT_EQ(MetaContextRequest::decode(request.encode()).queries.size(), 64u);
  request.queries.emplace_back("base:allocation");
  try {
    MetaContextRequest::decode(request.encode());
    FAIL() << "65 queries were accepted";
  } catch (const ProtocolError& error) {
    EXPECT_EQ(error.reply(), OptionReply::err_too_big);
  }
}

TEST(Options, RepliesHaveTheirGoldenBytes) {
  Bytes out;
  append_text_reply(out, Option::starttls, OptionReply::err_policy, "no");
  EXPECT_EQ(to_hex(out),
            "0003e889045565a9"
            "00000005"
            "80000002"
            "00000002"
            "6e6f");
  EXPECT_EQ(to_hex(encode_server("ab", "c")), "00000002616263");
  EXPECT_EQ(to_hex(encode_info_export(0x123456789, 0x09ed)), "0000000000012345678909ed");
  EXPECT_EQ(to_hex(encode_info_text(Info::name, "ab")), "00016162");
  EXPECT_EQ(to_hex(encode_info_block_size(1, 65536, 32 << 20)), "0003000000010001000002000000");
  EXPECT_EQ(to_hex(encode_meta_context(7, "a:b")), "00000007613a62");
}

TEST(Options, ExportNameReplyIsPaddedOnlyWhenAsked) {  // H4
  EXPECT_EQ(to_hex(encode_export_name_reply(512, 0x096d, false)), "0000000000000200096d");
  const Bytes padded = encode_export_name_reply(512, 0x096d, true);
  EXPECT_EQ(padded.size(), 134u);
  EXPECT_TRUE(std::all_of(padded.begin() + 10, padded.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

}  // namespace
}  // namespace nbd
