// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/admission.h"

#include <algorithm>
#include <cassert>

namespace qcow {

namespace {

constexpr uint64_t kPinnedTableBytesMax = 16 << 20;   // then operations wait for a commit
constexpr uint64_t kDirtyTableBytesUrgent = 8 << 20;  // then a commit starts early
constexpr size_t kDroppedClustersMax = 256 << 10;

}  // namespace

Admission::Admission(ImageParts& parts, PartialRelief& relief, Committer& committer)
    : geometry_(parts.geometry),
      allocator_(*parts.allocator),
      map_(*parts.map),
      freed_(parts.freed),
      partials_(*parts.partials),
      space_(*parts.space),
      demand_(parts.demand),
      failure_(parts.failure),
      sums_(parts.sums ? &*parts.sums : nullptr),
      relief_(relief),
      committer_(committer),
      promises_max_(
          std::max<uint64_t>(geometry_.clusters_for(parts.options.refcount_cover()) / 4, 1)),
      promises_(parts.runtime.executor, promises_max_) {}

/// A cluster that waits in memory may need its place and an L2 table.
bool Admission::must_wait_for_commit(uint64_t clusters) const {
  constexpr uint64_t kSpare = 32;
  const uint64_t needed = reserved_ + 2 * partials_.count() + clusters + kSpare;
  return (allocator_.room() < needed && allocator_.may_grow()) ||
         map_.pinned_bytes() > kPinnedTableBytesMax || freed_.dropped() > kDroppedClustersMax;
}

io::Task<Admission::Room> Admission::admit(uint64_t clusters) {
  const uint64_t promised = std::min(clusters, promises_max_);
  if (!promises_.try_acquire(promised)) co_await promises_.acquire(promised);
  io::Grant promise(promises_, promised);
  // Those who come at once must not all bring a partial cluster.
  while (!failure_ && relief_.overdue()) {
    co_await relief_.relieve();
  }
  for (;;) {
    while (!failure_ && !closed_ && must_wait_for_commit(clusters)) {
      demand_.urge();
      co_await committer_.wait_for_one();
    }
    if (sums_ == nullptr || sums_->has_room()) break;
    co_await sums_->make_room();  // others may have been promised the room meanwhile
  }
  if (map_.dirty_bytes() > kDirtyTableBytesUrgent) demand_.hurry();
  assert(failure_ || closed_ || !must_wait_for_commit(clusters));
  Room room(reserved_, clusters, std::move(promise));
  if (!space_.covers(end_after_commit())) co_await space_.reserve(end_after_commit());
  co_return room;
}

/// Where the file ends when all that was promised is there, and what waits in memory, each cluster
/// of it with a table, with the next commit's refcount blocks.
uint64_t Admission::end_after_commit() const {
  constexpr uint64_t kSpare = 8;
  const uint64_t clusters =
      reserved_ + 2 * partials_.count() + allocator_.blocks_at_once() + kSpare;
  const uint64_t ready = std::min(clusters, allocator_.ready_clusters());
  return allocator_.end_bytes() + ((clusters - ready) << geometry_.cluster_bits);
}

}  // namespace qcow
