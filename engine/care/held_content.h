// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/sums_reader.h"
#include "qcow/format/sums.h"

namespace engine {

/// Clusters [first, end) of a disk, by their index.
struct ClusterRange {
  uint64_t first = 0, end = 0;

  bool operator==(const ClusterRange&) const = default;
};

/// Neighbouring clusters that an image itself holds, whatever its parents do.
struct HeldRun {
  ClusterRange clusters;
  bool zero = false;
  std::vector<qcow::Sum> sums{};  ///< one for each; none: zero, or nobody knows
};

/// What one published image of clusters of 64 KiB holds, as its manifest states it; without a
/// manifest, as its own tables do, and then without sums. What the image reads as is not looked at.
/// Belongs to one executor thread.
class HeldContent {
 public:
  static constexpr uint32_t kClusterBits = 16;
  static constexpr uint64_t kClusterBytes = uint64_t{1} << kClusterBits;
  static constexpr uint64_t kTableClusters = kClusterBytes / 8;

  /// Throws FormatError and std::system_error when neither can be read.
  static io::Task<std::unique_ptr<HeldContent>> open(io::Runtime runtime, std::string image_path);

  /// Of clusters [index, index + 1) * kTableClusters; ascending. Throws as open().
  io::Task<std::vector<HeldRun>> of_table(uint64_t index);

 private:
  io::Task<std::vector<HeldRun>> by_manifest(uint64_t index);
  io::Task<std::vector<HeldRun>> by_tables(uint64_t index);

  std::unique_ptr<qcow::SumsReader> sums_;  // null: there is no manifest that can be used
  std::unique_ptr<qcow::Chain> image_;      // of those, without its parents
};

}  // namespace engine
