// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "qcow/format/sums.h"

/// What a verification and the process that reads for it say to each other: lines of text.
///
///   the process, once:      "ready SIZE", bytes of the disk, or "failed TEXT", and it ends
///   varve:                  "OFFSET COUNT": read so many clusters of the guest from there
///   the process, for each:  "sum OFFSET 32HEX", XXH3-128 of the cluster, or "unread OFFSET TEXT"
///
/// It answers in order. The end of varve's lines ends it. Pure.
namespace engine {

/// Without the newline.
constexpr size_t kReaderLineMax = 400;

struct ReaderRequest {
  uint64_t offset = 0, count = 0;  ///< guest bytes; clusters
  bool operator==(const ReaderRequest&) const = default;
};

struct ReaderLine {
  enum class Kind : uint8_t { ready, failed, sum, unread };
  Kind kind = Kind::ready;
  uint64_t offset = 0;  ///< of a sum and of unread; the size of ready
  qcow::Sum sum{};
  std::string text{};  ///< of failed and unread
  bool operator==(const ReaderLine&) const = default;
};

/// With the newline; a text is cut, and its control characters become spaces.
std::string encode(const ReaderRequest& request);
std::string encode(const ReaderLine& line);

/// Nothing for a line, without its newline, that encode() has not made.
std::optional<ReaderRequest> decode_reader_request(std::string_view line);
std::optional<ReaderLine> decode_reader_line(std::string_view line);

}  // namespace engine
