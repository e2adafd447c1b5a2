// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/freed_clusters.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace qcow {

void FreedClusters::drop(const Mapping& mapping, const Geometry& geometry) {
  if (!mapping.host) return;
  const uint64_t bytes = mapping.kind == MappingKind::compressed ? mapping.compressed_bytes() : 1;
  const HostCluster last = geometry.cluster_of(HostOffset{mapping.host.bytes + bytes - 1});
  for (HostCluster c = geometry.cluster_of(mapping.host); c <= last; ++c) drop(c);
}

size_t FreedClusters::begin_commit() {
  assert(in_commit_.empty() && "one commit at a time");
  drop_retained_over_bound();
  in_commit_ = std::exchange(dropped_, {});
  return in_commit_.size();
}

/// Zeroed clusters whose numbers take too much memory are given back instead of kept for their
/// guest cluster. Their zero mapping is in the coming snapshot or durable already.
void FreedClusters::drop_retained_over_bound() {
  if (!retained_.over_bound()) return;
  for (const RetainedClusters::Run& run : retained_.take_shortest(RetainedClusters::kRunsMax / 2)) {
    for (uint64_t i = 0; i < run.count; ++i) drop(run.host + i);
  }
}

void FreedClusters::committed() {
  assert(releasable_.empty() && "this commit has given back what the one before it released");
  if (!in_commit_.empty()) gaps_ = true;
  releasable_ = std::exchange(in_commit_, {});
}

void FreedClusters::release(std::vector<HostCluster> clusters) {
  assert(releasable_.empty());
  releasable_ = std::move(clusters);
}

io::Task<void> FreedClusters::give_back_all(Allocator& allocator) {
  assert(in_commit_.empty());
  releasable_.insert(releasable_.end(), dropped_.begin(), dropped_.end());
  dropped_.clear();
  if (!releasable_.empty()) gaps_ = true;
  co_await allocator.give_back(releasable_);
  constexpr uint64_t kClustersAtOnce = 64 << 10;
  for (const RetainedClusters::Run& run : retained_.take_all()) {
    gaps_ = true;
    for (uint64_t at = 0; at < run.count; at += kClustersAtOnce) {
      std::vector<HostCluster> clusters(std::min(kClustersAtOnce, run.count - at));
      for (uint64_t i = 0; i < clusters.size(); ++i) clusters[i] = run.host + (at + i);
      co_await allocator.give_back(clusters);
    }
  }
}

}  // namespace qcow
