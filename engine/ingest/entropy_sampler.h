// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace engine {

/// What 4 KiB look like.
enum class BlockKind : uint8_t {
  zero,
  compressible,    ///< programs, text, tables
  incompressible,  ///< 7.93 bits and more in a byte: encrypted, random, compressed well
};

/// Of kEntropyBlockBytes bytes.
inline constexpr size_t kEntropyBlockBytes = 4096;
BlockKind judge_block(std::span<const std::byte> block);

/// Estimates how much of the data that is written to a disk cannot be compressed.
///
/// Looks at a block in each 64 KiB of the first 16 MiB, and half as often with every doubling of
/// what was written: 256 blocks, about a millisecond, each time. The places are drawn, so that
/// regular layouts do not mislead. One thread.
class EntropySampler {
 public:
  /// `written` goes to `offset` of the disk.
  void add(uint64_t offset, std::span<const std::byte> written);

  /// What the samples stand for, in bytes.
  uint64_t judged_bytes() const { return judged_bytes_; }
  uint64_t incompressible_bytes() const { return incompressible_bytes_; }
  uint64_t zero_bytes() const { return zero_bytes_; }

  /// Offsets in the disk of blocks that cannot be compressed: all of them while they are few, then
  /// so many drawn from all.
  static constexpr size_t kPlacesMax = 64;
  const std::vector<uint64_t>& incompressible_places() const { return places_; }

 private:
  void sample(uint64_t offset, std::span<const std::byte> block);
  uint64_t draw(uint64_t end);

  uint64_t written_bytes_ = 0;
  uint64_t next_at_ = 0;  // in the order of writing
  uint64_t stride_bytes_ = 64 << 10;
  uint64_t samples_ = 0, places_seen_ = 0;
  uint64_t judged_bytes_ = 0, incompressible_bytes_ = 0, zero_bytes_ = 0;
  uint64_t random_ = 0x9e3779b97f4a7c15;
  std::vector<uint64_t> places_;
};

}  // namespace engine
