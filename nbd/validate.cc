// SPDX-License-Identifier: Apache-2.0
#include "nbd/validate.h"

#include <fmt/format.h>

namespace nbd {
namespace {

bool is_write(Command command) {
  return command == Command::write || command == Command::write_zeroes || command == Command::trim;
}

/// The flags that `request` may carry (C1, C2, C6–C9, C12, C13, C15).
uint16_t accepted_flags(const Request& request, const Export& exported,
                        const Negotiation& negotiation) {
  switch (request.command) {
    case Command::read:
      return negotiation.structured_replies ? kFlagFua | kFlagDf : kFlagFua;
    case Command::write_zeroes:
      return exported.read_only() ? kFlagFua | kFlagNoHole : kFlagFua | kFlagNoHole | kFlagFastZero;
    case Command::block_status:
      return kFlagFua | kFlagReqOne | (negotiation.status_filter() ? kFlagPayloadLen : 0);
    case Command::write:
      return kFlagFua | (negotiation.extended_headers ? kFlagPayloadLen : 0);
    case Command::disconnect:
      return 0xffff;
    default:
      return kFlagFua;
  }
}

std::optional<Refusal> refuse_command(const Request& request) {
  switch (request.command) {
    case Command::read:
    case Command::write:
    case Command::disconnect:
    case Command::flush:
    case Command::trim:
    case Command::write_zeroes:
    case Command::block_status:
      return std::nullopt;
    case Command::cache:
      return Refusal{WireError::einval, "command CACHE is not supported"};
    case Command::resize:
      break;
  }
  return Refusal{WireError::einval, fmt::format("unknown command {}", number_of(request.command))};
}

/// C1, C2, C7, C9, C13, C16: both ends inside the export; an offset equal to its size is inside
/// only for a length of 0.
std::optional<Refusal> refuse_range(const Request& request, const Export& exported) {
  const uint64_t size = exported.size();
  if (request.offset <= size && request.length <= size - request.offset) return std::nullopt;
  const bool no_space =
      request.command == Command::write || request.command == Command::write_zeroes;
  return Refusal{no_space ? WireError::enospc : WireError::einval,
                 fmt::format("{} @{}+{} is past the end of export \"{}\" ({} bytes)",
                             command_name(request.command), request.offset, request.length,
                             exported.name(), size)};
}

/// C4: how much one READ may ask for.
std::optional<Refusal> refuse_read_length(const Request& request, const Negotiation& negotiation) {
  const bool in_one_chunk = request.has(kFlagDf);
  const uint32_t limit = in_one_chunk ? kPayloadBytesAdvertised : kPayloadBytesMax;
  if (request.length <= limit) return std::nullopt;
  return Refusal{negotiation.structured_replies ? WireError::eoverflow : WireError::einval,
                 fmt::format("READ of {} bytes{} is longer than {}", request.length,
                             in_one_chunk ? " in one piece" : "", limit)};
}

std::optional<Refusal> refuse_block_status(const Request& request, const Negotiation& negotiation) {
  if (!negotiation.has_contexts) {
    return Refusal{WireError::einval, "BLOCK_STATUS without a negotiated metadata context"};
  }
  if (request.length == 0) return Refusal{WireError::einval, "BLOCK_STATUS of length 0"};
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> validate(const Request& request, const Export& exported,
                                const Negotiation& negotiation) {
  if (request.command == Command::write && request.payload_bytes > kPayloadBytesMax) {
    return Refusal{WireError::einval, fmt::format("WRITE of {} bytes is longer than {}",
                                                  request.payload_bytes, kPayloadBytesMax)};
  }
  if (auto refusal = refuse_command(request)) return refusal;
  const uint16_t unsupported = request.flags & ~accepted_flags(request, exported, negotiation);
  if (unsupported != 0) {
    return Refusal{WireError::einval, fmt::format("unsupported flags 0x{:x} for {}", unsupported,
                                                  command_name(request.command))};
  }
  if (request.command == Command::flush) return exported.flush_refusal();
  if (auto refusal =
          is_write(request.command) ? exported.change_refusal() : exported.closed_refusal()) {
    return refusal;
  }
  if (auto refusal = refuse_range(request, exported)) return refusal;
  if (request.command == Command::read) return refuse_read_length(request, negotiation);
  if (request.command == Command::block_status) return refuse_block_status(request, negotiation);
  return std::nullopt;
}

}  // namespace nbd
