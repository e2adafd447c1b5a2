// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "io/buffer.h"
#include "qcow/format/geometry.h"

namespace qcow {

/// Bytes [from, to) of one cluster.
struct ByteRange {
  uint32_t from = 0;
  uint32_t to = 0;
  bool operator==(const ByteRange&) const = default;
};

/// Part of a cluster that has no host cluster of its own yet (WP2).
struct PartialCluster {
  io::Buffer bytes;              ///< a whole cluster; only `valid` means anything
  std::vector<ByteRange> valid;  ///< ascending, neither touching nor overlapping
  uint64_t age = 0;              ///< smaller: older

  void put(uint32_t at, std::span<const std::byte> from);
  void put_zeroes(uint32_t at, uint32_t count);
  bool complete() const { return valid.size() == 1 && valid[0] == whole(); }
  /// The gaps have been filled.
  void mark_complete() { valid.assign(1, whole()); }
  /// Makes the bytes of the gaps zero, which stay gaps.
  void clear_gaps();
  /// Fills the gaps with zeroes.
  void fill_with_zeroes();
  /// Fills the gaps with zeroes where that makes the valid ranges begin and end at multiples of
  /// `alignment`.
  void round_out(uint32_t alignment);
  bool valid_is_zero() const;
  uint64_t valid_bytes() const;

  /// The ranges that are still to be filled from below.
  std::vector<ByteRange> gaps() const;

 private:
  ByteRange whole() const { return {0, static_cast<uint32_t>(bytes.size())}; }
  void mark_valid(ByteRange range);
};

/// Partial clusters wait in memory for the bytes of their neighbours, so that two requests that
/// meet inside a cluster cause neither a read nor a second write. What is still incomplete at a
/// commit, or when memory runs short, is filled from the chain by the image.
/// Belongs to one ring thread.
class PartialClusters {
 public:
  PartialClusters(io::BufferPool& buffers, Geometry geometry)
      : buffers_(buffers), geometry_(geometry) {}

  PartialCluster* find(GuestCluster cluster);
  /// The partial cluster, made if there is none. Past the end of the disk it is valid zeroes (WP5).
  PartialCluster& get(GuestCluster cluster);
  PartialCluster take(GuestCluster cluster);
  /// Forgets what whole clusters written or zeroed make void.
  void erase(GuestCluster first, uint64_t count);

  /// Copies what is known of bytes [at, at + into.size()) of the disk over `into`.
  void overlay(uint64_t at, std::span<std::byte> into) const;

  bool empty() const { return clusters_.empty(); }
  uint64_t count() const { return clusters_.size(); }
  uint64_t memory_bytes() const { return clusters_.size() * memory_bytes_each(); }
  std::vector<GuestCluster> all() const;
  std::vector<GuestCluster> oldest(size_t count) const;

 private:
  uint64_t memory_bytes_each() const { return std::max<uint64_t>(geometry_.cluster_bytes(), 4096); }

  io::BufferPool& buffers_;
  Geometry geometry_;
  uint64_t next_age_ = 0;
  std::map<GuestCluster, PartialCluster> clusters_;
};

}  // namespace qcow
