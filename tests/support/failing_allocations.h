// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace support {

/// One allocation fails: the `victim`-th, counted from 0, of those that this thread makes while
/// armed. `new` throws std::bad_alloc then, and the block of a buffer pool cannot be had.
///
/// A program that uses this links tests/support/failing_allocations.cc, which replaces the global
/// operator new. One object at a time in each thread.
class FailingAllocations {
 public:
  explicit FailingAllocations(uint64_t victim);
  FailingAllocations(const FailingAllocations&) = delete;
  ~FailingAllocations();

  void arm(bool armed);
  /// Allocations while armed.
  uint64_t count() const;
  bool failed() const;
};

}  // namespace support
