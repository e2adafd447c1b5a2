// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/retained_clusters.h"

#include <algorithm>

namespace qcow {

void RetainedClusters::add(GuestCluster guest, HostCluster host) {
  const auto next = runs_.upper_bound(guest);
  if (next != runs_.begin()) {
    auto& [first, run] = *std::prev(next);
    if (first + run.count == guest && run.host + run.count == host) {
      ++run.count;
      return;
    }
  }
  runs_.emplace_hint(next, guest, Value{host, 1});
}

std::optional<HostCluster> RetainedClusters::take(GuestCluster guest) {
  auto run = runs_.upper_bound(guest);
  if (run == runs_.begin()) return {};
  --run;
  const auto [first, value] = *run;
  const uint64_t at = guest - first;
  if (at >= value.count) return {};
  const auto behind = std::next(run);
  if (at == 0) {
    runs_.erase(run);
  } else {
    run->second.count = at;
  }
  if (at + 1 < value.count) {
    runs_.emplace_hint(behind, guest + 1, Value{value.host + at + 1, value.count - at - 1});
  }
  return value.host + at;
}

std::vector<RetainedClusters::Run> RetainedClusters::take_shortest(size_t count) {
  std::vector<Run> runs = take_all();
  count = std::min(count, runs.size());
  const auto kept = runs.begin() + static_cast<ptrdiff_t>(count);
  std::nth_element(runs.begin(), kept, runs.end(),
                   [](const Run& a, const Run& b) { return a.count < b.count; });
  for (auto run = kept; run != runs.end(); ++run) {
    runs_.emplace(run->guest, Value{run->host, run->count});
  }
  runs.resize(count);
  return runs;
}

std::vector<RetainedClusters::Run> RetainedClusters::take_all() {
  std::vector<Run> all;
  all.reserve(runs_.size());
  for (const auto& [guest, value] : runs_) all.push_back({guest, value.host, value.count});
  runs_.clear();
  return all;
}

}  // namespace qcow
