// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "qcow/format/geometry.h"

namespace qcow {

/// The host clusters of guest clusters that were zeroed. A guest cluster that is written again
/// gets its own host cluster back, so the file never grows past one host cluster a guest cluster,
/// however often a client zeroes and rewrites (LT9, LT10).
///
/// Kept as runs (guest and host both consecutive), in memory only: on disk the clusters keep
/// refcount 1 until they are given back at the end.
class RetainedClusters {
 public:
  struct Run {
    GuestCluster guest;
    HostCluster host;
    uint64_t count = 0;
  };
  static constexpr size_t kRunsMax = 40'000;  // about 3 MiB

  void add(GuestCluster guest, HostCluster host);

  /// The host cluster that `guest` once had; forgotten here.
  std::optional<HostCluster> take(GuestCluster guest);

  bool empty() const { return runs_.empty(); }
  bool over_bound() const { return runs_.size() > kRunsMax; }

  /// Forgets the shortest runs, `count` of them, and hands them out to be given back.
  std::vector<Run> take_shortest(size_t count);
  /// The same with all.
  std::vector<Run> take_all();

 private:
  struct Value {
    HostCluster host;
    uint64_t count = 0;
  };
  std::map<GuestCluster, Value> runs_;  // by first guest cluster
};

}  // namespace qcow
