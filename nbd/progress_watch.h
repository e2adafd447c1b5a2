// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "nbd/channel.h"

namespace nbd {

/// Aborts a connection on which no byte moves for `stall`, while its client owes some or has some
/// to read (X6). Belongs to the thread of the export.
class ProgressWatch {
 public:
  ProgressWatch(Channel& channel, io::Duration stall) : channel_(channel), stall_(stall) {}

  /// Until stop().
  void start() noexcept { tick(); }
  void stop() { alarm_.reset(); }

 private:
  void tick() noexcept;

  Channel& channel_;
  const io::Duration stall_;
  std::unique_ptr<io::Clock::Alarm> alarm_;
  uint64_t received_ = 0, sent_ = 0;  // at the last tick
  uint32_t still_ticks_ = 0;
};

}  // namespace nbd
