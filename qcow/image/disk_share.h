// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace qcow {

/// The disk below several images, shared between those that write at the moment.
///
/// A barrier waits for everything that is in flight on the disk, whoever sent it. So the images of
/// a process together keep only as many writes in flight as keep the disk busy: a deeper queue adds
/// no throughput, and makes each commit of each image wait longer. Thread-safe.
class DiskShare {
 public:
  static constexpr size_t kWritesTogether = 16;
  /// An image's least, so that it goes on however many there are.
  static constexpr size_t kWritesEachMin = 2;

  /// An image begins to write, and stops.
  void enter() { ++writing_; }
  void leave() { --writing_; }

  /// Writes that each of those who write now may have in flight, `most` at most.
  size_t writes_each(size_t most) const {
    const size_t fair = kWritesTogether / std::max<size_t>(writing_, 1);
    return std::min(most, std::max(fair, kWritesEachMin));
  }

  /// How many bytes each image may allocate ahead at once; 0: none, because the disk is nearly full
  /// and what one image holds unused is missing to another.
  void limit_step(uint64_t bytes) { step_max_.store(bytes, std::memory_order_relaxed); }
  uint64_t step_max() const { return step_max_.load(std::memory_order_relaxed); }

 private:
  std::atomic<size_t> writing_ = 0;
  std::atomic<uint64_t> step_max_ = UINT64_MAX;
};

}  // namespace qcow
