// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"

namespace engine {

/// A range of a disk that a copy has something to do about.
struct CopyRange {
  uint64_t offset = 0, length = 0;  ///< bytes
  bool zero = false;                ///< reads as zeroes, known without reading
};

/// Where a copy is. All in bytes.
struct CopyProgress {
  uint64_t size = 0;        ///< of the disk
  uint64_t done_until = 0;  ///< everything before it has been handed to the target
  uint64_t data = 0;        ///< read and written
  uint64_t zeroes = 0;      ///< made zero, or zero already
  uint64_t skipped = 0;     ///< equal to what the target holds
};

struct CopyOptions {
  /// Connections to one source and to one target that reach the same bytes. At least one of each.
  std::vector<io::BlockDevice*> sources, targets;
  uint64_t start = 0;  ///< what lies before it is there already
  uint64_t request_bytes = 1 << 20;
  uint32_t requests = 16;         ///< under way for each source
  bool target_is_zero = false;    ///< an empty target: zeroes need no work
  bool find_zeroes = false;       ///< a request that reads as zeroes is made zero, not written
  uint64_t bytes_per_second = 0;  ///< read at most; 0: as fast as it goes
  /// What is to be copied of [offset, offset + length): ranges in order, of which the first begins
  /// at `offset` or later; what lies between and after them is skipped. At most `length` is said;
  /// `known_until` is set to where it ends, beyond `offset`. Null: the extents of the first source.
  std::function<io::Task<std::vector<CopyRange>>(uint64_t offset, uint64_t length,
                                                 uint64_t& known_until)>
      plan;
  /// Called for each range that the target has accepted; it is durable after a later flush.
  std::function<void(const CopyRange&)> on_accepted;
  /// Called at the first failure, so that requests which take long can be given up.
  std::function<void(bool of_target)> on_failure;
  /// Called now and then; may throw, which ends the copy.
  std::function<io::Task<void>(const CopyProgress&)> on_progress;
};

/// Copies a disk and makes the target durable. Throws the first failure, once nothing is under way.
/// All devices belong to the thread of `runtime`.
io::Task<CopyProgress> copy_disk(io::Runtime runtime, CopyOptions options);

}  // namespace engine
