// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "qcow/format/geometry.h"
#include "qcow/image/file_space.h"
#include "qcow/image/refcounts.h"

namespace qcow {

/// Hands out host clusters at the end of the file and keeps their refcounts.
///
/// Invariant: a refcount reaches the disk before any L2 entry that names its cluster, and the
/// block that holds it was in the refcount table, durably, before the cluster was handed out. So a
/// crash can leak a cluster but never share one. A cluster given back is not handed out again
/// before the image is next opened. allocate() runs without a suspension point. Spec: LT9, LT12,
/// DU4. Belongs to one ring thread; the methods that return tasks only inside the one commit, or
/// while the image opens or closes.
class Allocator {
 public:
  /// Neighbouring clusters.
  struct Span {
    HostCluster first;
    uint64_t count = 0;
    HostCluster end() const { return first + count; }
  };

  /// `cover_bytes`: how far ahead of the last cluster the refcount blocks shall reach.
  Allocator(io::File& file, std::string image_name, Geometry geometry, HostOffset refcount_table,
            uint64_t refcount_table_clusters, uint64_t cover_bytes);

  /// Reads the refcount table and finds the end of the clusters with a refcount.
  io::Task<void> open();
  /// Clusters below `end_cluster` are taken, whatever their refcounts say.
  void reserve_below(HostCluster end_cluster) { end_ = std::max(end_, end_cluster); }
  /// Finds clusters below the end that an earlier session gave back: refcount 0, and not `named` by
  /// any table. They are handed out first, once prepare_free() has made them ready; so no mapping
  /// that is durable may name one.
  io::Task<void> find_free(const std::vector<bool>& named);
  /// The first cluster that is `named` and has refcount 0.
  io::Task<std::optional<HostCluster>> first_without_refcount(const std::vector<bool>& named);
  /// What the block on the disk says, 0 without a block. While the image opens.
  io::Task<uint64_t> refcount_of(HostCluster cluster);
  /// Clusters with a refcount that are not `named`, from `from` on, `count_max` at most.
  io::Task<std::vector<HostCluster>> in_use_but(const std::vector<bool>& named, HostCluster from,
                                                size_t count_max);
  /// Makes room behind the end, crash-safely: a larger refcount table where the image's own does
  /// not cover what the disk may still need, and the first refcount blocks.
  io::Task<void> make_room(uint64_t clusters_missing);

  /// From now on commits make free clusters ready, with space from there; it outlives this object.
  void use_space(FileSpace& space) { space_ = &space; }
  /// Makes the next free clusters ready: their refcounts are in memory, and there is space for
  /// them, because they may have become holes. Those that there is no space for wait for the next
  /// commit.
  io::Task<void> prepare_free();
  /// Free clusters that the next calls of allocate(1) will hand out.
  uint64_t ready_clusters() const { return ready_clusters_; }

  /// Clusters that may be handed out now. Grows when a commit has installed refcount blocks.
  uint64_t room() const;
  /// So many clusters more will be needed than was known at open, because as many lost their owner.
  /// Returns how many these are with the refcount blocks for them.
  uint64_t expect_more(uint64_t clusters);
  /// No commit plans more refcount blocks than this.
  uint64_t blocks_at_once() const { return blocks_at_once_; }
  /// Whether a commit can still make room.
  bool may_grow() const {
    return horizon_ < wanted_horizon() && block_of(horizon_) < refcounts_.blocks_max();
  }

  /// `count` consecutive clusters, refcount 1. Throws EFBIG when the image cannot grow. A single
  /// one may be a cluster that was free when the image was opened.
  HostOffset allocate(uint64_t count);
  /// The first cluster never handed out; the file ends there at last.
  HostCluster end_cluster() const { return end_; }
  uint64_t end_bytes() const { return geometry_.start_of(end_).bytes; }

  // A commit, in this order (DU4).
  /// Lowers the refcounts of clusters that no durable mapping names any more. A cluster may come
  /// several times. Clears the list.
  io::Task<void> give_back(std::vector<HostCluster>& clusters);
  /// Takes clusters for the refcount blocks that will be wanted next. No suspension point.
  void plan_blocks();
  bool dirty() const { return refcounts_.dirty() || !planned_.empty(); }
  bool has_planned_blocks() const { return !planned_.empty(); }
  /// Before the first barrier: refcounts and new blocks.
  io::Task<void> write_refcounts();
  /// Behind it: the refcount table's entries for the new blocks.
  io::Task<void> write_table_entries();
  /// Behind the second barrier.
  io::Task<void> committed();

  // At the end.
  /// Moves the end down over clusters that were given back.
  io::Task<void> lower_end();
  /// Clusters below the end with refcount 0, at most `count_max` spans from `from` on; those that
  /// are `named` are left out.
  io::Task<std::vector<Span>> unowned(HostCluster from, size_t count_max,
                                      const std::vector<bool>* named = nullptr);

  const Refcounts& refcounts() const { return refcounts_; }
  /// Clusters of the refcount table that open() replaced; to be given back.
  std::vector<HostCluster> take_replaced_table() { return std::exchange(replaced_table_, {}); }

 private:
  uint64_t blocks_for(uint64_t clusters_missing) const;
  io::Task<void> move_table(uint64_t blocks_needed);
  io::Task<bool> make_ready(uint64_t count_max);
  uint64_t ready_window_end() const;
  void drop_blocks();
  io::Task<void> install_first_blocks();
  io::Task<void> install_block_in_itself();
  void take(HostCluster cluster);
  HostCluster wanted_horizon() const;
  uint64_t block_of(HostCluster cluster) const { return geometry_.refcount_table_index(cluster); }
  uint64_t reserve_for_blocks() const;

  io::File& file_;
  std::string image_name_;
  Geometry geometry_;
  Refcounts refcounts_;
  uint64_t per_block_;
  uint64_t cover_clusters_;
  uint64_t blocks_at_once_;
  FileSpace* space_ = nullptr;
  HostCluster end_max_;  // an end that is never passed
  HostCluster end_;      // first cluster never handed out
  HostCluster horizon_;  // clusters below it are covered by durable blocks
  std::vector<Refcounts::NewBlock> planned_;
  std::vector<HostCluster> replaced_table_;
  // Below the end, refcount 0, in the order of use: those that may be handed out, and those after.
  std::deque<Span> ready_, free_;
  uint64_t ready_clusters_ = 0;
};

}  // namespace qcow
