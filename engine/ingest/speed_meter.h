// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>

#include "io/clock.h"

/// How fast bytes arrived over the last ten seconds. Shown as transfer_speed_bps.
/// Belongs to the control thread.
namespace engine {

class SpeedMeter {
 public:
  static constexpr io::Duration kWindow = std::chrono::seconds(10);

  /// `bytes` is the total so far.
  void note(io::SteadyTime now, uint64_t bytes) {
    marks_.push_back({now, bytes});
    // One mark older than the window stays, so that the window is always covered.
    while (marks_.size() > 2 && now - marks_[1].at >= kWindow) marks_.pop_front();
  }

  uint64_t bytes_per_second() const {
    // Exports that have ended do not count any more.
    if (marks_.size() < 2 || marks_.back().bytes < marks_.front().bytes) return 0;
    const std::chrono::duration<double> span = marks_.back().at - marks_.front().at;
    if (span.count() <= 0) return 0;
    return static_cast<uint64_t>(static_cast<double>(marks_.back().bytes - marks_.front().bytes) /
                                 span.count());
  }

 private:
  struct Mark {
    io::SteadyTime at;
    uint64_t bytes = 0;
  };
  std::deque<Mark> marks_;
};

}  // namespace engine
