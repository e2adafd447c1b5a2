// SPDX-License-Identifier: Apache-2.0
#include "nbd/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "io/big_endian.h"
#include "io/utf8.h"

namespace nbd {

using io::BigEndianReader;
using io::BigEndianWriter;

std::string command_name(Command command) {
  switch (command) {
    case Command::read:
      return "READ";
    case Command::write:
      return "WRITE";
    case Command::disconnect:
      return "DISC";
    case Command::flush:
      return "FLUSH";
    case Command::trim:
      return "TRIM";
    case Command::cache:
      return "CACHE";
    case Command::write_zeroes:
      return "WRITE_ZEROES";
    case Command::block_status:
      return "BLOCK_STATUS";
    case Command::resize:
      break;  // never offered: named by number, as every unknown one
  }
  return fmt::format("command {}", number_of(command));
}

WireError wire_error(int storage_errno) {
  switch (storage_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WireError::enospc;
    case EROFS:
    case EPERM:
    case EACCES:
      return WireError::eperm;
    case ENOMEM:
      return WireError::enomem;
    case ENOTSUP:
      return WireError::enotsup;
    default:
      return WireError::eio;
  }
}

namespace {

std::string_view truncated(std::string_view text) {
  if (text.size() <= kErrorTextBytesMax) return text;
  size_t end = kErrorTextBytesMax;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

void check_string(std::string_view text, std::string_view what) {
  if (text.size() > kStringBytesMax) {
    throw ProtocolError(fmt::format("{} is longer than {} bytes", what, kStringBytesMax));
  }
  for (size_t index = 0; index < text.size();) {
    const size_t length = io::utf8_character_bytes(text.substr(index));
    if (length == 0) throw ProtocolError(fmt::format("{} is not valid UTF-8", what));
    if (text[index] == '\0') throw ProtocolError(fmt::format("{} contains NUL", what));
    index += length;
  }
}

std::array<std::byte, Greeting::kWireBytes> Greeting::encode() {
  std::array<std::byte, kWireBytes> wire;
  BigEndianWriter(wire)
      .put(kGreetingMagic)
      .put(kOptionMagic)
      .put(static_cast<uint16_t>(kFixedNewstyle | kNoZeroes));
  return wire;
}

OptionHeader OptionHeader::decode(std::span<const std::byte, kWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint64_t>() != kOptionMagic) throw ProtocolError("option: wrong magic");
  return {Option{in.take<uint32_t>()}, in.take<uint32_t>()};
}

std::array<std::byte, OptionHeader::kWireBytes> OptionHeader::encode() const {
  std::array<std::byte, kWireBytes> wire;
  BigEndianWriter(wire).put(kOptionMagic).put(number_of(option)).put(length);
  return wire;
}

Request Request::decode(std::span<const std::byte, kWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint32_t>() != kMagic) throw ProtocolError("request: wrong magic");
  Request request{in.take<uint16_t>(), Command{in.take<uint16_t>()}, in.take<uint64_t>(),
                  in.take<uint64_t>(), in.take<uint32_t>()};
  if (request.command == Command::write) request.payload_bytes = request.length;
  return request;
}

std::array<std::byte, Request::kWireBytes> Request::encode() const {
  std::array<std::byte, kWireBytes> wire;
  BigEndianWriter(wire)
      .put(kMagic)
      .put(flags)
      .put(number_of(command))
      .put(cookie)
      .put(offset)
      .put(static_cast<uint32_t>(length));
  return wire;
}

Request Request::decode_extended(std::span<const std::byte, kExtendedWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint32_t>() != kExtendedMagic) throw ProtocolError("extended request: wrong magic");
  Request request{in.take<uint16_t>(), Command{in.take<uint16_t>()}, in.take<uint64_t>(),
                  in.take<uint64_t>(), in.take<uint64_t>()};
  const bool is_write = request.command == Command::write;
  if (is_write || request.has(kFlagPayloadLen)) request.payload_bytes = request.length;
  if (!is_write && request.has(kFlagPayloadLen)) request.length = 0;
  return request;
}

std::array<std::byte, Request::kExtendedWireBytes> Request::encode_extended() const {
  std::array<std::byte, kExtendedWireBytes> wire;
  BigEndianWriter(wire)
      .put(kExtendedMagic)
      .put(flags)
      .put(number_of(command))
      .put(cookie)
      .put(offset)
      .put(has(kFlagPayloadLen) ? payload_bytes : length);
  return wire;
}

StatusFilter StatusFilter::decode(std::span<const std::byte> wire) {
  if (wire.size() < wire_bytes(1) || (wire.size() - wire_bytes(0)) % sizeof(uint32_t) != 0) {
    throw ProtocolError(
        fmt::format("{} bytes do not hold a length and context ids for BLOCK_STATUS", wire.size()));
  }
  BigEndianReader in(wire);
  StatusFilter filter{in.take<uint64_t>(), {}};
  while (in.left() > 0) {
    const uint32_t id = in.take<uint32_t>();
    if (std::ranges::find(filter.context_ids, id) != filter.context_ids.end()) {
      throw ProtocolError(fmt::format("BLOCK_STATUS names context {} twice", id));
    }
    filter.context_ids.push_back(id);
  }
  return filter;
}

Bytes StatusFilter::encode() const {
  Bytes wire(wire_bytes(context_ids.size()));
  BigEndianWriter out(wire);
  out.put(length);
  for (const uint32_t id : context_ids) out.put(id);
  return wire;
}

SimpleReply SimpleReply::decode(std::span<const std::byte, kWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint32_t>() != kSimpleReplyMagic) throw ProtocolError("simple reply: wrong magic");
  return {WireError{in.take<uint32_t>()}, in.take<uint64_t>()};
}

std::array<std::byte, SimpleReply::kWireBytes> SimpleReply::encode() const {
  std::array<std::byte, kWireBytes> wire;
  BigEndianWriter(wire).put(kSimpleReplyMagic).put(number_of(error)).put(cookie);
  return wire;
}

ChunkHeader ChunkHeader::decode(std::span<const std::byte, kWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint32_t>() != kChunkMagic) throw ProtocolError("structured reply: wrong magic");
  const uint16_t flags = in.take<uint16_t>();
  return {(flags & kDone) != 0, ChunkType{in.take<uint16_t>()}, in.take<uint64_t>(),
          in.take<uint32_t>()};
}

std::array<std::byte, ChunkHeader::kWireBytes> ChunkHeader::encode() const {
  std::array<std::byte, kWireBytes> wire;
  BigEndianWriter(wire)
      .put(kChunkMagic)
      .put(static_cast<uint16_t>(done ? kDone : 0))
      .put(number_of(type))
      .put(cookie)
      .put(static_cast<uint32_t>(length));
  return wire;
}

ChunkHeader ChunkHeader::decode_extended(std::span<const std::byte, kExtendedWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint32_t>() != kExtendedReplyMagic)
    throw ProtocolError("extended reply: wrong magic");
  const uint16_t flags = in.take<uint16_t>();
  ChunkHeader header{(flags & kDone) != 0, ChunkType{in.take<uint16_t>()}, in.take<uint64_t>()};
  header.offset = in.take<uint64_t>();
  header.length = in.take<uint64_t>();
  return header;
}

std::array<std::byte, ChunkHeader::kExtendedWireBytes> ChunkHeader::encode_extended() const {
  std::array<std::byte, kExtendedWireBytes> wire;
  BigEndianWriter(wire)
      .put(kExtendedReplyMagic)
      .put(static_cast<uint16_t>(done ? kDone : 0))
      .put(number_of(type))
      .put(cookie)
      .put(offset)
      .put(length);
  return wire;
}

std::array<std::byte, kDataChunkPrefixBytes> encode_data_prefix(uint64_t offset) {
  std::array<std::byte, kDataChunkPrefixBytes> wire;
  io::store_be(wire.data(), offset);
  return wire;
}

std::array<std::byte, kHoleChunkBytes> encode_hole(uint64_t offset, uint32_t length) {
  std::array<std::byte, kHoleChunkBytes> wire;
  BigEndianWriter(wire).put(offset).put(length);
  return wire;
}

Bytes encode_error(WireError error, std::string_view text) {
  text = truncated(text);
  Bytes wire(sizeof(uint32_t) + sizeof(uint16_t) + text.size());
  BigEndianWriter(wire)
      .put(number_of(error))
      .put(static_cast<uint16_t>(text.size()))
      .put_text(text);
  return wire;
}

Bytes encode_error_offset(WireError error, std::string_view text, uint64_t offset) {
  Bytes wire = encode_error(error, text);
  wire.resize(wire.size() + sizeof offset);
  io::store_be(wire.data() + wire.size() - sizeof offset, offset);
  return wire;
}

Bytes encode_block_status(uint32_t context_id, std::span<const StatusRun> runs) {
  Bytes wire(sizeof context_id + runs.size() * 2 * sizeof(uint32_t));
  BigEndianWriter out(wire);
  out.put(context_id);
  for (const StatusRun& run : runs) {
    out.put(static_cast<uint32_t>(run.length)).put(static_cast<uint32_t>(run.flags));
  }
  return wire;
}

Bytes encode_block_status_ext(uint32_t context_id, std::span<const StatusRun> runs) {
  Bytes wire(2 * sizeof(uint32_t) + runs.size() * 2 * sizeof(uint64_t));
  BigEndianWriter out(wire);
  out.put(context_id).put(static_cast<uint32_t>(runs.size()));
  for (const StatusRun& run : runs) out.put(run.length).put(run.flags);
  return wire;
}

}  // namespace nbd
