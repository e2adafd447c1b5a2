// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "io/runtime.h"
#include "qcow/format/sums.h"
#include "qcow/image/cluster_map.h"
#include "qcow/image/disk_share.h"

namespace qcow {

/// What write_zeroes with ZeroMode::no_hole does.
enum class NoHole : uint8_t {
  zero_clusters,  ///< as may_unmap: reads as zero, takes no space, hides the parent
  allocate,       ///< stores zeroes, so that later writes there need no space
};

/// What only tests change.
struct ImageTuning {
  /// Data accepted and not yet written: in bytes, and in I/Os under way.
  uint64_t write_behind_bytes = 16 << 20;
  size_t writes_in_flight = 8;
  /// Neighbours in the file are written together up to this.
  size_t merged_write_bytes = 1 << 20;
  /// Memory for L2 tables that equal the disk's; one stays in any case.
  uint64_t table_cache_bytes = ClusterMap::kCacheBytes;
  /// Memory for partial clusters; above it the oldest are filled from the parents.
  uint64_t partial_bytes = 8 << 20;
  uint64_t allocate_step_bytes = 256 << 20;
  /// Zeroes of a partial cluster are left out where the file was never written: in such units, and
  /// when that saves more than this for each write it takes.
  uint32_t sparse_unit_bytes = 4096;
  uint64_t sparse_write_cost_bytes = 24 << 10;
  uint64_t refcount_cover_bytes = 512 << 20;  ///< as ImageOptions::refcount_cover(), at least
};

struct ImageOptions {
  /// Parents must lie in here (RF15); empty: anywhere.
  std::string repository_root;

  /// A commit starts after this time or this much new data, whichever is first (DU3).
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;

  /// Refcount blocks reach this far beyond the last cluster, in bytes: two commits' worth, because
  /// one is being written down while the next one's data arrive.
  uint64_t refcount_cover() const {
    return std::max(tuning.refcount_cover_bytes, 2 * commit_bytes);
  }

  std::shared_ptr<DiskShare> disk = nullptr;  ///< shared with the other images on the disk
  NoHole no_hole = NoHole::zero_clusters;
  bool allocate_ahead = true;

  /// Where seal() writes the manifest (docs/manifest.md), for which the checksum of each cluster is
  /// kept as it is written; empty: none is.
  std::string sums_path;
  /// Where the manifest of the image at a path lies. With it, a written cluster that the parents
  /// hold already is not stored (qcow/image/elision.h); empty: all are.
  std::function<std::string(std::string_view image_path)> elide_by;
  /// Called with each piece of the manifest as it is written, in order; throws nothing.
  std::function<void(std::span<const std::byte>)> on_sums;

  /// Called with the checksum of each cluster that is given its place, and with null for one whose
  /// content is not known any more; throws nothing. For who goes on with the image after a crash.
  std::function<void(GuestCluster cluster, const Sum* sum)> on_sum;

  /// A file system that is full refuses what is new, and takes it again once there is space. With
  /// this, the refusal is a failure like any other, and final.
  bool full_is_final = false;

  /// Called with the first failure at once, also when no request is under way; what it throws is
  /// logged and goes no further. Not called while the image is sealed or ended, because that throws
  /// the failure.
  std::function<void(std::exception_ptr)> on_failure = nullptr;

  ImageTuning tuning;
};

struct ImageCounters {
  uint64_t bytes_stored = 0;  ///< host clusters given to guest clusters since open
  uint64_t bytes_zeroed = 0;  ///< by write_zeroes and discard
  uint64_t bytes_elided = 0;  ///< equal to the parents' content and not stored
  uint64_t commits = 0;       ///< that wrote something
  uint64_t file_bytes = 0;    ///< end of the used part of the file
};

}  // namespace qcow
