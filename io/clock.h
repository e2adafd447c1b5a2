// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include "io/executor.h"
#include "io/sync.h"

namespace io {

/// A time that only goes forward; for timeouts and measures.
using SteadyTime = std::chrono::steady_clock::time_point;
/// A time that people read; for names, rows and files.
using WallTime = std::chrono::system_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

class Clock {
 public:
  /// A call that is due at some time; dropping it cancels the call.
  class Alarm {
   public:
    virtual ~Alarm() = default;
  };

  virtual ~Clock() = default;
  virtual SteadyTime now() const = 0;
  virtual WallTime wall_time() const = 0;

  /// Runs `action` once on the executor's thread, at `due` or soon after, unless the alarm is
  /// dropped before. Only from the executor's thread.
  [[nodiscard]] virtual std::unique_ptr<Alarm> call_at(SteadyTime due, Job action) = 0;
};

/// Returns after `duration`.
Task<void> sleep(Executor& executor, Clock& clock, Duration duration);

/// Waits until `event` is set, or for `patience`. True when the event is set.
Task<bool> wait_for(Executor& executor, Clock& clock, Event& event, Duration patience);

}  // namespace io
