// SPDX-License-Identifier: Apache-2.0
#include "nbd/replies.h"

#include <fmt/format.h>

#include "io/big_endian.h"

namespace nbd {
namespace {

using io::BigEndianReader;

/// Runs `decode` over all of `wire`.
template <class Decode>
auto whole_message(std::span<const std::byte> wire, std::string_view what, Decode decode) {
  BigEndianReader in(wire);
  try {
    auto message = decode(in);
    if (in.left() == 0) return message;
  } catch (const std::out_of_range&) {
    throw ProtocolError(fmt::format("{} of {} bytes is truncated", what, wire.size()));
  }
  throw ProtocolError(fmt::format("{} of {} bytes is too long", what, wire.size()));
}

std::string text_of(std::string_view text, std::string_view what) {
  check_string(text, what);
  return std::string(text);
}

void check_runs(const StatusPayload& payload) {
  for (const StatusRun& run : payload.runs) {
    if (run.length == 0) throw ProtocolError("block status: a run of length 0");
  }
  if (payload.runs.empty()) throw ProtocolError("block status: no run");
}

}  // namespace

OptionReplyHeader OptionReplyHeader::decode(std::span<const std::byte, kWireBytes> wire) {
  BigEndianReader in(wire);
  if (in.take<uint64_t>() != kOptionReplyMagic) throw ProtocolError("option reply: wrong magic");
  OptionReplyHeader header{Option{in.take<uint32_t>()}, OptionReply{in.take<uint32_t>()},
                           in.take<uint32_t>()};
  if (header.length > kDataBytesMax) {
    throw ProtocolError(
        fmt::format("option reply of {} bytes is longer than {}", header.length, kDataBytesMax));
  }
  return header;
}

ListedExport ListedExport::decode(std::span<const std::byte> data) {
  return whole_message(data, "LIST reply", [](BigEndianReader& in) {
    const auto name_bytes = in.take<uint32_t>();
    ListedExport listed;
    listed.name = text_of(in.take_text(name_bytes), "export name");
    listed.description = text_of(in.take_text(in.left()), "export description");
    return listed;
  });
}

void ExportInfo::take(std::span<const std::byte> data) {
  whole_message(data, "INFO reply", [this](BigEndianReader& in) {
    switch (Info{in.take<uint16_t>()}) {
      case Info::exported:
        size = in.take<uint64_t>();
        flags = in.take<uint16_t>();
        is_known = true;
        break;
      case Info::name:
        name = text_of(in.take_text(in.left()), "export name");
        break;
      case Info::description:
        description = text_of(in.take_text(in.left()), "export description");
        break;
      case Info::block_size:
        block_bytes_min = in.take<uint32_t>();
        block_bytes_preferred = in.take<uint32_t>();
        payload_bytes_max = in.take<uint32_t>();
        break;
      default:
        in.skip(in.left());
    }
    return true;
  });
}

OfferedContext OfferedContext::decode(std::span<const std::byte> data) {
  return whole_message(data, "META_CONTEXT reply", [](BigEndianReader& in) {
    const auto id = in.take<uint32_t>();
    return OfferedContext{id, text_of(in.take_text(in.left()), "context name")};
  });
}

ErrorPayload ErrorPayload::decode(std::span<const std::byte> payload) {
  return whole_message(payload, "error", [](BigEndianReader& in) {
    const WireError error{in.take<uint32_t>()};
    const auto text_bytes = in.take<uint16_t>();
    ErrorPayload decoded{error, text_of(in.take_text(text_bytes), "error text")};
    if (in.left() == sizeof(uint64_t)) in.skip(sizeof(uint64_t));  // ERROR_OFFSET
    if (decoded.error == WireError::none) throw ProtocolError("error: its number is 0");
    return decoded;
  });
}

HolePayload HolePayload::decode(std::span<const std::byte> payload) {
  return whole_message(payload, "hole", [](BigEndianReader& in) {
    const auto offset = in.take<uint64_t>();
    return HolePayload{offset, in.take<uint32_t>()};
  });
}

StatusPayload StatusPayload::decode(std::span<const std::byte> payload) {
  return whole_message(payload, "block status", [](BigEndianReader& in) {
    StatusPayload status{in.take<uint32_t>(), {}};
    while (in.left() > 0) {
      const auto length = in.take<uint32_t>();
      status.runs.push_back({length, in.take<uint32_t>()});
    }
    check_runs(status);
    return status;
  });
}

StatusPayload StatusPayload::decode_ext(std::span<const std::byte> payload) {
  return whole_message(payload, "block status", [](BigEndianReader& in) {
    StatusPayload status{in.take<uint32_t>(), {}};
    const auto count = in.take<uint32_t>();
    while (status.runs.size() < count) {  // a false count ends at the payload's end
      const auto length = in.take<uint64_t>();
      status.runs.push_back({length, in.take<uint64_t>()});
    }
    check_runs(status);
    return status;
  });
}

}  // namespace nbd
