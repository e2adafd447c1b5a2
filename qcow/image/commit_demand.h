// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "io/clock.h"
#include "io/sync.h"

namespace qcow {

/// What waits for the next commit, and how urgently. Belongs to one executor thread.
class CommitDemand {
 public:
  /// `bytes_max`: so much new data makes it urgent.
  CommitDemand(io::Executor& executor, uint64_t bytes_max)
      : executor_(executor), bytes_max_(bytes_max), changed_(executor), urgent_(executor) {}

  /// Something is there to commit; `data_bytes` of it are data.
  void note(uint64_t data_bytes) {
    if (data_bytes > 0) data_written_ = true;
    bytes_ += data_bytes;
    changed_.set();
    if (bytes_ >= bytes_max_) urgent_.set();
  }
  /// A commit starts at once, also when nothing has changed.
  void urge() noexcept {
    changed_.set();
    urgent_.set();
  }
  /// A commit does not wait for the interval, if there is something to commit.
  void hurry() noexcept { urgent_.set(); }

  bool any() const { return changed_.is_set(); }
  /// Returns once something is there to commit.
  auto wait() { return changed_.wait(); }
  /// Returns once it is urgent, or after `interval`.
  io::Task<bool> wait_until_urgent(io::Clock& clock, io::Duration interval) {
    return io::wait_for(executor_, clock, urgent_, interval);
  }

  /// A snapshot covers all there is. Returns whether data were written since the last one.
  bool take() noexcept {
    changed_.reset();
    urgent_.reset();
    bytes_ = 0;
    return std::exchange(data_written_, false);
  }

 private:
  io::Executor& executor_;
  const uint64_t bytes_max_;
  uint64_t bytes_ = 0;  // of data since the last snapshot
  bool data_written_ = false;
  io::Event changed_;
  io::Event urgent_;
};

}  // namespace qcow
