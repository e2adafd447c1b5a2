// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "qcow/format/geometry.h"
#include "qcow/image/allocator.h"
#include "qcow/image/retained_clusters.h"

namespace qcow {

/// Host clusters that have lost a mapping, on their way to refcount 0 (LT12).
///
///     mapped ──drop()──▶ dropped ──begin_commit() N──▶ in commit N ──committed()──▶ releasable
///                           ▲                                                          │
///     mapped ──zeroed──▶ retained ──its own guest cluster is written──▶ mapped         │
///                                                                       commit N + 1   ▼
///     handed out again ◀──next open── free ◀───────────────────── give_back(): refcount − 1
///
/// Invariant: a refcount goes down only when the mapping without the cluster is durable, that is in
/// a later commit than the one that wrote it; and what has refcount 0 is handed out to nobody
/// before the next open. A cluster may be here several times, once for each mapping that it has
/// lost. Memory only: a crash leaks what is here. Belongs to one executor thread.
class FreedClusters {
 public:
  /// Those of zeroed guest clusters, which keep refcount 1.
  RetainedClusters& retained() { return retained_; }

  void drop(HostCluster cluster) { dropped_.push_back(cluster); }
  /// The host clusters of a mapping that is being replaced lose an owner.
  void drop(const Mapping& mapping, const Geometry& geometry);
  /// Waiting for a snapshot.
  size_t dropped() const { return dropped_.size(); }

  /// The snapshot is about to be taken: what was dropped until now is not named in it. Returns how
  /// many clusters these are.
  size_t begin_commit();
  /// In the commit: what an earlier one has made unreachable.
  io::Task<void> give_back(Allocator& allocator) { return allocator.give_back(releasable_); }
  /// The snapshot is durable.
  void committed();

  /// Clusters with a refcount that no durable mapping names.
  void release(std::vector<HostCluster> clusters);
  /// At the end, when every mapping is durable: gives back all of them, retained ones too.
  io::Task<void> give_back_all(Allocator& allocator);

  /// Whether some cluster below the end of the file may have refcount 0.
  bool gaps() const { return gaps_; }
  void note_gaps() { gaps_ = true; }

 private:
  void drop_retained_over_bound();

  RetainedClusters retained_;
  std::vector<HostCluster> dropped_;     // named by the last snapshot
  std::vector<HostCluster> in_commit_;   // not by the snapshot that is being written
  std::vector<HostCluster> releasable_;  // not by any table on the disk
  bool gaps_ = false;
};

}  // namespace qcow
