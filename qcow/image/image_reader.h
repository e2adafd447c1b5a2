// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "qcow/image/image_parts.h"

namespace qcow {

/// Clusters [first, end).
struct ClusterRange {
  GuestCluster first;
  GuestCluster end;
};

/// Reads a writable image: what waits in memory, over what the file stores, over the parents.
/// Changes nothing but the cache of tables. Belongs to one executor thread; outlives its tasks.
class ImageReader {
 public:
  explicit ImageReader(ImageParts& parts);

  /// As of io::BlockDevice. Enters the clusters itself.
  io::Task<void> read(uint64_t offset, std::span<std::byte> into);
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length, size_t count_max);
  /// Whether a cluster reads as zero, as far as is known without reading data. Enters it.
  io::Task<bool> reads_as_zero(GuestCluster cluster);

  // Of clusters that the caller has entered.
  /// The same of what lies under the bytes that wait in memory.
  io::Task<bool> base_reads_as_zero(GuestCluster cluster);
  /// Bytes of one cluster, from `at` in it on, as they are without what waits in memory.
  io::Task<void> read_base(GuestCluster cluster, uint32_t at, std::span<std::byte> into);
  /// The clusters of a range that read as zero when nothing is stored here, as far as the parents'
  /// tables tell; ascending, merged.
  io::Task<std::vector<ClusterRange>> zero_below(GuestCluster first, uint64_t count);

 private:
  struct Run;
  GuestCluster cluster_of(uint64_t offset) const {
    return geometry_.cluster_of(GuestOffset{offset});
  }
  std::vector<Run> runs_in_table(const L2Table* table, uint64_t offset, uint64_t end) const;
  io::Task<void> read_run(Run run, std::span<std::byte> into);
  io::Task<void> read_below(uint64_t offset, std::span<std::byte> into);
  io::Task<void> read_compressed(Mapping mapping, GuestCluster cluster, uint32_t at,
                                 std::span<std::byte> into);
  io::Task<void> extents_below(uint64_t offset, uint64_t length, size_t count_max,
                               std::vector<io::Extent>& extents);

  const std::string& name_;
  io::File& file_;
  const Header& header_;
  const Geometry& geometry_;
  Chain* const parents_;  // may be null
  ClusterMap& map_;
  PartialClusters& partials_;
  RangeQueue& ranges_;
  const WriteBehind& write_behind_;
  const ImageFailure& failure_;
};

}  // namespace qcow
