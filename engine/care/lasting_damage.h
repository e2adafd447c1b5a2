// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/care/held_content.h"
#include "io/runtime.h"

namespace engine {

/// One image of a chain, and which of its clusters were found damaged.
struct ProvenImage {
  std::string path;
  std::vector<ClusterRange> damaged{};  ///< ascending, apart from each other
};

/// What should be in neighbouring clusters that are damaged.
struct LostRun {
  ClusterRange clusters;
  bool zero = false;
  std::vector<qcow::Sum> sums{};  ///< one for each; none: zero, or nobody knows
};

/// Which points of a chain read what is damaged in it.
struct LastingDamage {
  /// Of each image: the first point after it that stores all of that anew, or the number of images
  /// when even the newest reads it; meaningless for an image without damage.
  std::vector<size_t> healed_at;
  std::vector<ClusterRange> newest;  ///< what of it the newest point reads; ascending
  std::vector<LostRun> lost;         ///< the first clusters_max of those, and what should be there
  bool truncated = false;            ///< `lost` has fewer than `newest`
};

/// A cluster that a newer image stores or zeroes is that one's affair. Of the images only manifests
/// are read, and tables where there are none. Throws for a manifest or a table that cannot be read.
/// `chain`: the full first. On a data thread.
io::Task<LastingDamage> lasting_damage(io::Runtime data, std::vector<ProvenImage> chain,
                                       uint64_t clusters_max);

/// The parts of `ranges` that are not in `taken`; both ascending.
std::vector<ClusterRange> without(const std::vector<ClusterRange>& ranges,
                                  const std::vector<ClusterRange>& taken);
/// Ascending, apart from each other.
std::vector<ClusterRange> joined(std::vector<ClusterRange> ranges);

}  // namespace engine
