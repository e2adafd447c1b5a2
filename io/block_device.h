// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/buffer.h"
#include "io/task.h"

namespace io {

/// What a range of a block device holds, as far as the device knows without reading it.
struct Extent {
  uint64_t length = 0;  ///< bytes, never 0
  /// Reads as zeroes, known without reading.
  bool zero = false;
  /// Which layer answers: 1 the device itself, 2 its parent, and so on; 0 none (unallocated).
  uint32_t depth = 0;

  bool same_kind(const Extent& other) const { return zero == other.zero && depth == other.depth; }
};

/// How a range becomes zero.
enum class ZeroMode : uint8_t {
  may_unmap,     ///< whichever is cheapest
  no_hole,       ///< space stays (or becomes) allocated
  fast_or_fail,  ///< only when no data has to be written, else ENOTSUP with contents unchanged
};

/// The seam of the whole system: an NBD session exports one, a QCOW2 image is one, a backup fills
/// one, a restore reads one.
///
/// Offsets and lengths are bytes, any alignment; the caller keeps them inside size(). Failures
/// throw std::system_error (or a FormatError, for bad metadata) that names verb, object and range.
/// Belongs to one executor thread; several calls may be under way at once, also on one range.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  /// Exact size, never rounded.
  virtual uint64_t size() const = 0;

  /// The unit in which partial writes start to cost more, a power of two.
  virtual uint32_t preferred_block_size() const = 0;

  /// Fills all of `into`.
  virtual Task<void> read(uint64_t offset, std::span<std::byte> into) = 0;

  /// Takes the bytes over and returns once they are accepted: readable by everyone, not yet
  /// durable. `from` is best placed so that its address ≡ offset modulo 4096.
  virtual Task<void> write(uint64_t offset, Buffer from) = 0;

  /// Makes the range read as zeroes, whatever lies below.
  virtual Task<void> write_zeroes(uint64_t offset, uint64_t length, ZeroMode mode) = 0;

  /// As write_zeroes, and gives space back where that is possible.
  virtual Task<void> discard(uint64_t offset, uint64_t length) = 0;

  /// Makes everything accepted before the call durable, whoever sent it.
  virtual Task<void> flush() = 0;

  /// Describes the range from `offset` in at most `count_max` extents, at least one, neighbours of
  /// one kind merged. They may stop short of `length`, and never pass it.
  virtual Task<std::vector<Extent>> extents(uint64_t offset, uint64_t length, size_t count_max) = 0;
};

}  // namespace io
