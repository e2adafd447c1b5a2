// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/block_device.h"
#include "qcow/image/held_write.h"
#include "qcow/image/image_parts.h"
#include "qcow/image/image_reader.h"

namespace qcow {

/// The steps that change what clusters map to, for those who hold the clusters and have been
/// admitted (Admission): whole clusters of data, completed partial clusters, zeroes.
///
/// Invariant: from the look-up of an entry to the submission of its data write there is no
/// suspension point (DU2), so no snapshot sees a mapping whose data write it would not wait for;
/// and what waits in memory leaves it in the step that maps it. Every change is noted for the next
/// commit. Belongs to one executor thread; outlives its tasks.
class ClusterWriter {
 public:
  ClusterWriter(ImageParts& parts, ImageReader& reader);

  /// Data for whole clusters that `held` holds; `sums` are their checksums, or null.
  io::Task<void> place(std::shared_ptr<HeldWrite> held, GuestCluster first, uint64_t count,
                       const std::byte* bytes, const Sum* sums = nullptr);
  /// Clusters, held by the caller, that read the same without what was written to them (WP13).
  void leave_to_parents(GuestCluster first, uint64_t count);
  /// Stores a partial cluster whose gaps, if it has any, are zeroes. Until its mapping says so it
  /// stays where a commit looks for it, because its bytes were acknowledged.
  io::Task<void> finish_partial(GuestCluster cluster, RangeQueue::Hold hold, bool detect_zeroes);

  /// Whole clusters, held by the caller, become zero by their mapping alone (WP8–WP10).
  io::Task<void> zero(GuestCluster first, uint64_t count);
  /// Data clusters of zeroes. All writes take their bytes from one buffer.
  io::Task<void> store_zeroes(std::shared_ptr<HeldWrite> held, GuestCluster first, uint64_t count);
  /// Part of a cluster that is stored here: what becomes all zero goes as a whole cluster.
  io::Task<void> zero_in_place(RangeQueue::Hold hold, Mapping mapping, uint64_t offset,
                               uint64_t length, io::ZeroMode mode);
  /// Version 2 has no zero flag: over a parent only stored zeroes hide it.
  bool must_store_zeroes() const { return header_.version < 3 && has_parents_; }

 private:
  io::Task<L2Table*> table_for_update(uint64_t l1_index);
  void place_in_table(const std::shared_ptr<HeldWrite>& held, L2Table& table, GuestCluster first,
                      uint64_t count, const std::byte* bytes, const Sum* sums);
  HostOffset host_for_new_data(L2Table& table, GuestCluster cluster);
  void note_sums(GuestCluster first, uint64_t count, const std::byte* bytes, const Sum* sums);
  void store_partial(const std::shared_ptr<HeldWrite>& held, L2Table& table, GuestCluster cluster);
  void zero_in_table(L2Table& table, GuestCluster first, uint64_t count,
                     const std::vector<ClusterRange>& already_zero);

  io::BufferPool& buffers_;
  io::File& file_;
  const ImageTuning& tuning_;
  const Header& header_;
  const Geometry& geometry_;
  const bool has_parents_;
  ClusterMap& map_;
  Allocator& allocator_;
  FreedClusters& freed_;
  const FileSpace& space_;
  PartialClusters& partials_;
  WriteBehind& write_behind_;
  CommitDemand& demand_;
  ImageFailure& failure_;
  ImageCounters& counters_;
  SumLog* const sums_;  // or null
  ImageReader& reader_;
  io::Semaphore completed_;  // bytes of partial clusters completed and not yet written
};

}  // namespace qcow
