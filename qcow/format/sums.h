// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qcow/format/uuid.h"

/// The bytes of a manifest, "<image>.qcow2.sums": what an image holds, cluster by cluster, and a
/// checksum of each cluster's content as it was sent.
///
/// Blocks, one for each L2 table's range of guest clusters that holds anything, in ascending
/// order; then an index of them; then a footer. All integers are big-endian. Spec:
/// docs/manifest.md. Pure.
namespace qcow {

/// XXH3-128 of a whole guest cluster, in the canonical order of its bytes.
using Sum = std::array<std::byte, 16>;

Sum sum_of(std::span<const std::byte> cluster);

/// 32 hexadecimal digits, and back; nothing for any other text.
std::string sum_text(const Sum& sum);
std::optional<Sum> sum_from_text(std::string_view text);

/// What clusters of a range hold.
enum class SumKind : uint8_t {
  data,  ///< stored, each with a sum
  zero,  ///< known to be zero, whatever the parents hold
};

/// Neighbouring clusters of one kind, counted from the block's first.
struct SumRun {
  uint32_t first = 0, count = 0;
  SumKind kind = SumKind::data;

  uint32_t end() const { return first + count; }
  bool operator==(const SumRun&) const = default;
};

/// The range of one L2 table. What no run names, the image does not hold.
struct SumBlock {
  uint64_t l1_index = 0;
  std::vector<SumRun> runs;  ///< ascending, neither touching (of one kind) nor overlapping
  std::vector<Sum> sums;     ///< of the clusters of all data runs, in order

  /// Puts a cluster behind all others.
  void add_data(uint32_t index, const Sum& sum);
  void add_zero(uint32_t index);
  /// Of one of so many clusters, encoded.
  static uint64_t bytes_max(uint32_t clusters);
  bool operator==(const SumBlock&) const = default;

 private:
  void add(uint32_t index, SumKind kind);
};

std::vector<std::byte> encode(const SumBlock& block);
/// Throws FormatError, which names `file`, for bytes that encode() has not made of a block of
/// `clusters` clusters.
SumBlock decode_sum_block(std::span<const std::byte> bytes, uint64_t l1_index, uint32_t clusters,
                          std::string_view file);

/// Where one block is.
struct SumIndexEntry {
  static constexpr size_t kBytes = 16;
  uint64_t l1_index = 0;
  uint64_t offset = 0;  ///< bytes; it ends where the next one, or the index, begins
  bool operator==(const SumIndexEntry&) const = default;
};

std::vector<std::byte> encode(std::span<const SumIndexEntry> index);
/// Throws FormatError unless indices and offsets ascend and end at `index_offset`.
std::vector<SumIndexEntry> decode_sum_index(std::span<const std::byte> bytes, uint64_t index_offset,
                                            std::string_view file);

/// The last bytes of the file.
struct SumsFooter {
  static constexpr size_t kBytes = 72;
  static constexpr uint32_t kVersion = 1;
  Uuid image_uuid{};
  uint32_t cluster_bits = 16;
  uint64_t virtual_bytes = 0;
  uint64_t block_count = 0;
  uint64_t index_offset = 0;  ///< bytes
  uint64_t index_check = 0;   ///< XXH3-64 of the index

  std::vector<std::byte> encode() const;
  /// Of a file of `file_bytes`. Throws FormatError.
  static SumsFooter decode(std::span<const std::byte> bytes, uint64_t file_bytes,
                           std::string_view file);
  bool operator==(const SumsFooter&) const = default;
};

/// XXH3-64, for what only must not be damaged unnoticed.
uint64_t check_of(std::span<const std::byte> bytes);

}  // namespace qcow
