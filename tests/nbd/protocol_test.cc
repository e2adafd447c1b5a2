// SPDX-License-Identifier: Apache-2.0
#include "nbd/protocol.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "tests/nbd/wire.h"

namespace nbd {
namespace {

using wire::from_hex;
using wire::to_hex;

template <size_t kSize>
std::span<const std::byte, kSize> fixed(const Bytes& bytes) {
  return std::span<const std::byte, kSize>(bytes.data(), kSize);
}

TEST(Protocol, GreetingIsTheEighteenBytesOfFixedNewstyle) {  // H1
  EXPECT_EQ(to_hex(Greeting::encode()),
            "4e42444d41474943"
            "49484156454f5054"
            "0003");
}

TEST(Protocol, OptionHeaderHasItsGoldenBytes) {
  const Bytes golden = from_hex("49484156454f5054 00000007 0000000a");
  EXPECT_EQ(to_hex(OptionHeader{Option::go, 10}.encode()), to_hex(golden));
  const OptionHeader header = OptionHeader::decode(fixed<16>(golden));
  EXPECT_EQ(header.option, Option::go);
  EXPECT_EQ(header.length, 10u);
}

TEST(Protocol, OptionHeaderWithAnotherMagicIsRefused) {  // H2
  Bytes wire = from_hex("49484156454f5054 00000007 0000000a");
  for (size_t at = 0; at < 8; ++at) {
    Bytes broken = wire;
    broken[at] ^= std::byte{1};
    EXPECT_THROW(OptionHeader::decode(fixed<16>(broken)), ProtocolError) << at;
  }
}

TEST(Protocol, RequestHasItsGoldenBytes) {
  const Bytes golden = from_hex("25609513 0001 0006 1122334455667788 0000000100000200 00001000");
  const Request request = Request::decode(fixed<28>(golden));
  EXPECT_EQ(request.flags, kFlagFua);
  EXPECT_EQ(request.command, Command::write_zeroes);
  EXPECT_EQ(request.cookie, 0x1122334455667788u);
  EXPECT_EQ(request.offset, 0x100000200u);
  EXPECT_EQ(request.length, 0x1000u);
  EXPECT_EQ(to_hex(request.encode()), to_hex(golden));
}

TEST(Protocol, RequestKeepsUnknownCommandsAndFlagsForTheirRefusal) {
  const Request request{0xabcd, Command{4711}, 7, ~uint64_t{0}, 0xffffffff};
  const Request back = Request::decode(request.encode());
  EXPECT_EQ(back.flags, 0xabcd);
  EXPECT_EQ(number_of(back.command), 4711);
  EXPECT_EQ(back.offset, ~uint64_t{0});
  EXPECT_EQ(back.length, 0xffffffffu);
}

TEST(Protocol, RequestWithAnotherMagicIsRefused) {  // C17
  for (size_t at = 0; at < 4; ++at) {
    auto wire = Request{}.encode();
    wire[at] ^= std::byte{0x80};
    EXPECT_THROW(Request::decode(wire), ProtocolError) << at;
  }
}

TEST(Protocol, ExtendedRequestHasItsGoldenBytes) {
  const Bytes golden =
      from_hex("21e41c71 0001 0006 1122334455667788 0000000100000200 0000400000000000");
  const Request request = Request::decode_extended(fixed<32>(golden));
  EXPECT_EQ(request.flags, kFlagFua);
  EXPECT_EQ(request.command, Command::write_zeroes);
  EXPECT_EQ(request.cookie, 0x1122334455667788u);
  EXPECT_EQ(request.offset, 0x100000200u);
  EXPECT_EQ(request.length, uint64_t{1} << 46);
  EXPECT_EQ(request.payload_bytes, 0u);
  EXPECT_EQ(to_hex(request.encode_extended()), to_hex(golden));
}

TEST(Protocol, PayloadLenSaysThatTheLengthIsOneOfBytesThatFollow) {
  const Bytes write =
      from_hex("21e41c71 0021 0001 0000000000000007 0000000000010000 0000000000000200");
  const Request with_data = Request::decode_extended(fixed<32>(write));
  EXPECT_EQ(with_data.payload_bytes, 0x200u);
  EXPECT_EQ(with_data.length, 0x200u);
  EXPECT_EQ(to_hex(with_data.encode_extended()), to_hex(write));
  const Bytes status =
      from_hex("21e41c71 0020 0007 0000000000000007 0000000000010000 000000000000000c");
  const Request filtered = Request::decode_extended(fixed<32>(status));
  EXPECT_EQ(filtered.payload_bytes, 12u);
  EXPECT_EQ(filtered.length, 0u);  // stands in the payload
  EXPECT_EQ(to_hex(filtered.encode_extended()), to_hex(status));
  // A WRITE always has its data; without the flag nothing follows any other command.
  const Bytes bare =
      from_hex("21e41c71 0000 0001 0000000000000007 0000000000010000 0000000000000200");
  EXPECT_EQ(Request::decode_extended(fixed<32>(bare)).payload_bytes, 0x200u);
  const Bytes trim =
      from_hex("21e41c71 0000 0004 0000000000000007 0000000000010000 0000000000000200");
  EXPECT_EQ(Request::decode_extended(fixed<32>(trim)).payload_bytes, 0u);
  EXPECT_EQ(Request::decode(Request{0, Command::write, 7, 0, 512}.encode()).payload_bytes, 512u);
  EXPECT_EQ(Request::decode(Request{0, Command::trim, 7, 0, 512}.encode()).payload_bytes, 0u);
}

TEST(Protocol, EachKindOfRequestRefusesTheOthersMagic) {  // C17, X-1
  Bytes compact(32), extended(28);
  const auto request = Request{0, Command::read, 7, 0, 512};
  std::ranges::copy(request.encode(), compact.begin());
  std::ranges::copy_n(request.encode_extended().begin(), 28, extended.begin());
  EXPECT_THROW(Request::decode_extended(fixed<32>(compact)), ProtocolError);
  EXPECT_THROW(Request::decode(fixed<28>(extended)), ProtocolError);
}

TEST(Protocol, StatusFilterHasItsGoldenBytes) {
  const Bytes golden = from_hex("0000010000000000 00000002 00000001");
  const StatusFilter filter = StatusFilter::decode(golden);
  EXPECT_EQ(filter.length, uint64_t{1} << 40);
  EXPECT_EQ(filter.context_ids, (std::vector<uint32_t>{2, 1}));
  EXPECT_EQ(to_hex(filter.encode()), to_hex(golden));
}

TEST(Protocol, StatusFilterIsRefusedWhenCutAnywhereOrWithAnIdTwice) {
  const Bytes whole = from_hex("0000010000000000 00000002 00000001");
  for (size_t length = 0; length < whole.size(); ++length) {
    const auto cut = std::span(whole).first(length);
    if (length == 12) {
      EXPECT_EQ(StatusFilter::decode(cut).context_ids.size(), 1u);
    } else {
      EXPECT_THROW(StatusFilter::decode(cut), ProtocolError) << length;
    }
  }
  EXPECT_THROW(StatusFilter::decode(from_hex("0000010000000000 00000002 00000002")), ProtocolError);
}

TEST(Protocol, SimpleReplyHasItsGoldenBytes) {  // P1
  const SimpleReply reply{WireError::enospc, 0x0102030405060708};
  EXPECT_EQ(to_hex(reply.encode()),
            "67446698"
            "0000001c"
            "0102030405060708");
  EXPECT_EQ(SimpleReply::decode(reply.encode()).error, WireError::enospc);
  EXPECT_EQ(SimpleReply::decode(reply.encode()).cookie, reply.cookie);
}

TEST(Protocol, ChunkHeaderHasItsGoldenBytes) {  // P2, P4
  const ChunkHeader header{true, ChunkType::offset_hole, 5, 12};
  EXPECT_EQ(to_hex(header.encode()),
            "668e33ef"
            "0001"
            "0002"
            "0000000000000005"
            "0000000c");
  const ChunkHeader back = ChunkHeader::decode(header.encode());
  EXPECT_TRUE(back.done);
  EXPECT_EQ(back.type, ChunkType::offset_hole);
  EXPECT_EQ(back.length, 12u);
  EXPECT_FALSE(ChunkHeader::decode(ChunkHeader{}.encode()).done);
}

TEST(Protocol, ExtendedReplyHasItsGoldenBytes) {
  const ChunkHeader header{true, ChunkType::block_status_ext, 5, 24, 0x100000200};
  EXPECT_EQ(to_hex(header.encode_extended()),
            "6e8a278c"
            "0001"
            "0006"
            "0000000000000005"
            "0000000100000200"
            "0000000000000018");
  const ChunkHeader back = ChunkHeader::decode_extended(header.encode_extended());
  EXPECT_TRUE(back.done);
  EXPECT_EQ(back.type, ChunkType::block_status_ext);
  EXPECT_EQ(back.cookie, 5u);
  EXPECT_EQ(back.offset, 0x100000200u);
  EXPECT_EQ(back.length, 24u);
  EXPECT_FALSE(ChunkHeader::decode_extended(ChunkHeader{}.encode_extended()).done);
}

TEST(Protocol, RepliesWithAnotherMagicAreRefused) {
  EXPECT_THROW(ChunkHeader::decode_extended(fixed<32>(Bytes(32))), ProtocolError);
  EXPECT_THROW(SimpleReply::decode(fixed<16>(Bytes(16))), ProtocolError);
  EXPECT_THROW(ChunkHeader::decode(fixed<20>(Bytes(20))), ProtocolError);
}

TEST(Protocol, ChunkPayloadsHaveTheirGoldenBytes) {  // P3
  EXPECT_EQ(to_hex(encode_data_prefix(0x10000)), "0000000000010000");
  EXPECT_EQ(to_hex(encode_hole(0x10000, 0x200)), "000000000001000000000200");
  EXPECT_EQ(to_hex(encode_error(WireError::einval, "no")), "0000001600026e6f");
  EXPECT_EQ(to_hex(encode_error_offset(WireError::eio, "", 0x30000)),
            "00000005"
            "0000"
            "0000000000030000");
  const std::vector<StatusRun> runs = {{65536, 0}, {131072, 3}};
  EXPECT_EQ(to_hex(encode_block_status(2, runs)),
            "00000002"
            "0001000000000000"
            "0002000000000003");
  const std::vector<StatusRun> long_runs = {{uint64_t{1} << 40, 0}, {65536, 3}};
  EXPECT_EQ(to_hex(encode_block_status_ext(2, long_runs)),
            "00000002"
            "00000002"
            "00000100000000000000000000000000"
            "00000000000100000000000000000003");
}

TEST(Protocol, ErrorTextIsCutAtTwoHundredAndFiftySixBytesBetweenCharacters) {  // P2
  const Bytes plain = encode_error(WireError::eio, std::string(300, 'x'));
  EXPECT_EQ(plain.size(), 6u + 256u);
  const std::string umlauts = std::string(255, 'x') + "ü";
  const Bytes cut = encode_error(WireError::eio, umlauts);
  EXPECT_EQ(cut.size(), 6u + 255u);
}

TEST(Protocol, StringsAreValidUtf8OfAtMost4096Bytes) {  // H5
  EXPECT_NO_THROW(check_string("", "name"));
  EXPECT_NO_THROW(check_string(std::string(4096, 'a'), "name"));
  EXPECT_NO_THROW(check_string("vm-ü-€-😀/disk-0@2026", "name"));
  EXPECT_THROW(check_string(std::string(4097, 'a'), "name"), ProtocolError);
  EXPECT_THROW(check_string(std::string_view("a\0b", 3), "name"), ProtocolError);
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x82", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "ab\xc3("}) {
    EXPECT_THROW(check_string(bad, "name"), ProtocolError) << to_hex(wire::from_text(bad));
  }
}

TEST(Protocol, StorageErrorsBecomeTheFewErrorsOfTheWire) {  // H12
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) EXPECT_EQ(wire_error(error), WireError::enospc);
  for (const int error : {EROFS, EPERM, EACCES}) EXPECT_EQ(wire_error(error), WireError::eperm);
  for (const int error : {EIO, EBADF, ENOENT, EINVAL, ETIMEDOUT}) {
    EXPECT_EQ(wire_error(error), WireError::eio);
  }
}

TEST(Protocol, CommandsAreNamedAsInTheSpecification) {
  EXPECT_EQ(command_name(Command::write_zeroes), "WRITE_ZEROES");
  EXPECT_EQ(command_name(Command::resize), "command 8");
  EXPECT_EQ(command_name(Command{99}), "command 99");
}

}  // namespace
}  // namespace nbd
