// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "app/pull/source.h"
#include "engine/restore/copier.h"
#include "io/block_device.h"

namespace app {

/// How far the source's change tracking is believed.
enum class TrackingMode : uint8_t {
  trusted,  ///< what it calls clean is not read
  sampled,  ///< some of what it calls clean is read and compared with the newest point
  checked,  ///< everything is sent, and what differs is held against what it reports
};

class Tracking;

/// Tells what was missed, or that nothing was.
void report_untracked(bool json, uint32_t disk_index, const Tracking& tracking);

/// Plans the copy of one disk, and finds what change tracking has missed.
///
/// Ranges are counted in clusters of the image, 64 KiB: a change in a cluster reports all of it.
/// Belongs to the source's ring.
class Tracking {
 public:
  static constexpr uint64_t kGrainBytes = 64 << 10;

  /// `sampled_share`: of the clean clusters, in (0, 1]. `target` reads as the newest point where
  /// nothing was written to it.
  Tracking(TrackingMode mode, double sampled_share, PullSource& source, io::BlockDevice& target);

  /// As engine::CopyOptions::plan. A sampled cluster that differs is part of the plan.
  io::Task<std::vector<engine::CopyRange>> plan(uint64_t offset, uint64_t length, uint64_t& until,
                                                bool everything);

  /// Checked: the parts of `changed`, what really differs, that were not reported.
  void note_changed(const std::vector<engine::CopyRange>& changed);

  const std::vector<engine::CopyRange>& missed() const { return missed_; }
  uint64_t missed_bytes() const;
  uint64_t sampled_clusters() const { return sampled_clusters_; }

 private:
  io::Task<void> note_reported(uint64_t offset, uint64_t end);
  void add_reported(const engine::CopyRange& range);
  io::Task<std::vector<engine::CopyRange>> with_samples(std::vector<engine::CopyRange> reported,
                                                        uint64_t offset, uint64_t end);
  io::Task<std::vector<uint64_t>> differing(const std::vector<uint64_t>& clusters);

  const TrackingMode mode_;
  PullSource& source_;
  io::BlockDevice& target_;
  std::mt19937_64 random_;
  std::geometric_distribution<uint64_t> skip_;
  uint64_t next_sample_ = 0;                 // cluster
  std::vector<engine::CopyRange> reported_;  // whole clusters, ascending, not touching
  std::vector<engine::CopyRange> missed_;
  uint64_t sampled_clusters_ = 0;
};

}  // namespace app
