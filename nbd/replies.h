// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nbd/protocol.h"

/// What a server answers, as a client reads it: the other half of options.h and protocol.h.
///
/// Every decode() throws ProtocolError for what no server may send, a truncated message
/// included; nothing is believed. No I/O; any thread.
namespace nbd {

/// Spec: "Fixed newstyle negotiation", a reply to an option without its data.
struct OptionReplyHeader {
  static constexpr size_t kWireBytes = 20;
  /// What a client takes at most: a reply holds two strings and some numbers.
  static constexpr uint32_t kDataBytesMax = 65536;
  Option option = Option::abort;
  OptionReply type = OptionReply::ack;
  uint32_t length = 0;

  bool is_error() const { return (number_of(type) & 0x80000000) != 0; }
  /// The last reply to its option.
  bool is_final() const { return type == OptionReply::ack || is_error(); }
  static OptionReplyHeader decode(std::span<const std::byte, kWireBytes> wire);
};

/// One export of a LIST.
struct ListedExport {
  std::string name, description;
  static ListedExport decode(std::span<const std::byte> data);
};

/// What INFO and GO say of an export, reply by reply. The defaults are the specification's.
struct ExportInfo {
  std::string name, description;
  uint64_t size = 0;
  uint16_t flags = 0;
  uint32_t block_bytes_min = 1, block_bytes_preferred = 4096;
  uint32_t payload_bytes_max = kPayloadBytesAdvertised;
  bool is_known = false;  ///< size and flags have been said, as they must

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  /// Takes the data of one INFO reply in; unknown kinds are ignored.
  void take(std::span<const std::byte> data);
};

/// A metadata context, as LIST_META_CONTEXT and SET_META_CONTEXT name it.
struct OfferedContext {
  uint32_t id = 0;
  std::string name;
  static OfferedContext decode(std::span<const std::byte> data);
};

// Payloads of chunks.
struct ErrorPayload {
  WireError error = WireError::none;
  std::string text;
  static ErrorPayload decode(std::span<const std::byte> payload);
};
struct HolePayload {
  uint64_t offset = 0;
  uint32_t length = 0;
  static HolePayload decode(std::span<const std::byte> payload);
};
struct StatusPayload {
  uint32_t context_id = 0;
  std::vector<StatusRun> runs;
  static StatusPayload decode(std::span<const std::byte> payload);
  static StatusPayload decode_ext(std::span<const std::byte> payload);
};

}  // namespace nbd
