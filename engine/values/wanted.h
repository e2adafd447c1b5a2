// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/values/types.h"

/// What the newest point of a VM lacks, because verifications have found it damaged:
/// docs/verify.md, "Healing". Plain values, usable on any thread. Sizes are bytes.
namespace engine {

/// GET /vm-contexts/{vm}/wanted.
struct WantedQuery {
  std::string vm;             ///< context id or registered name
  std::string repository_id;  ///< "": that of the VM's newest point
};

/// Neighbouring clusters of the newest point that are not what was sent.
struct WantedRange {
  uint64_t offset = 0, length = 0;  ///< of the disk; whole clusters, but for the disk's end
  bool zero = false;                ///< they were zero when the point was made
  /// Of each cluster, the XXH3-128 of what was sent as 32 hexadecimal digits. None although it is
  /// not `zero`: no manifest says what it was, and only a full into the chain heals it.
  std::vector<std::string> sums;

  bool operator==(const WantedRange&) const = default;
};

struct WantedDisk {
  uint32_t disk_index = 0;
  std::string backup_id;  ///< of its newest point
  std::string change_id;  ///< the newest point's, which a point that only heals has again
  uint64_t size_bytes = 0, cluster_bytes = 0;
  std::vector<WantedRange> ranges{};  ///< ascending
  /// False: more may be damaged than `ranges` names, for what a verification has found has no end
  /// that it could name, or because an answer has only so many clusters.
  bool complete = true;

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const WantedRange& range : ranges) sum += range.length;
    return sum;
  }
};

/// An image in the chain of a newest point that its last verification found damaged.
struct DamagedImage {
  std::string backup_id;
  uint32_t disk_index = 0;
  Time verified_at{};
  uint64_t damaged_bytes = 0;
  uint64_t unnamed_bytes = 0;  ///< of those, in none of the ranges that are remembered
  std::string problem{};       ///< what is wrong beside ranges, as a sentence
  bool newest_reads_it = false;
  /// Older than the newest, and of the same chain: they read the damage, and stay as they are.
  std::vector<std::string> damaged_backups{};
};

struct WantedView {
  std::string context_id, vm_name, repository_id;
  std::vector<WantedDisk> disks;     ///< those with a point, ascending index
  std::vector<DamagedImage> images;  ///< by disk, oldest first

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const WantedDisk& disk : disks) sum += disk.bytes();
    return sum;
  }
  bool complete() const {
    for (const WantedDisk& disk : disks) {
      if (!disk.complete) return false;
    }
    return true;
  }
};

}  // namespace engine
