// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "app/pull/source.h"
#include "engine/restore/copier.h"
#include "io/block_device.h"

namespace app {

/// Ranges that the server has taken, given back at the source once a flush has made them durable.
/// Belongs to the source's ring.
class TrimQueue {
 public:
  TrimQueue(PullSource& source, io::BlockDevice& target) : source_(source), target_(target) {}

  void note(const engine::CopyRange& range) {
    bytes_ += range.length;
    if (!ranges_.empty() && ranges_.back().offset + ranges_.back().length == range.offset) {
      ranges_.back().length += range.length;
    } else {
      ranges_.push_back(range);
    }
  }
  bool due() const { return bytes_ >= kBytesMax || ranges_.size() >= kRangesMax; }

  io::Task<void> trim() {
    bytes_ = 0;
    const std::vector<engine::CopyRange> durable = std::exchange(ranges_, {});
    if (durable.empty()) co_return;
    co_await target_.flush();
    for (const engine::CopyRange& range : durable)
      co_await source_.trim(range.offset, range.length);
  }

 private:
  /// How much may wait for the server's flush.
  static constexpr uint64_t kBytesMax = 256 << 20;
  static constexpr size_t kRangesMax = 4096;

  PullSource& source_;
  io::BlockDevice& target_;
  std::vector<engine::CopyRange> ranges_;
  uint64_t bytes_ = 0;
};

}  // namespace app
