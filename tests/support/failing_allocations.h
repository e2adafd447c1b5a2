#pragma once

#include <cstdint>

namespace support {

/// Lets one allocation by operator new throw std::bad_alloc: the `victim`-th of this thread while
/// armed. For programs that link with failing_allocations.cc, which replaces operator new.
///
/// Allocations of exactly a block of std::deque are let through: the ring's queue of what is ready
/// is made of them and has no way to fail; there the process would end, as by a kill.
class FailingAllocations {
 public:
  explicit FailingAllocations(uint64_t victim);
  ~FailingAllocations();
  FailingAllocations(const FailingAllocations&) = delete;

  void arm(bool armed);
  uint64_t count() const;
  bool failed() const;
};

}  // namespace support
