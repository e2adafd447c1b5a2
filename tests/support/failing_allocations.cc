#include "tests/support/failing_allocations.h"

#include <cstdlib>
#include <new>

namespace support {
namespace {

constexpr std::size_t kDequeBlockBytes = 512;

struct State {
  bool armed = false, failed = false;
  uint64_t count = 0, victim = 0;
};
thread_local State state;

/// True when this allocation is the one that fails.
bool fails(std::size_t bytes) {
  if (!state.armed || bytes == kDequeBlockBytes) return false;
  if (state.count++ != state.victim) return false;
  state.failed = true;
  return true;
}

}  // namespace

FailingAllocations::FailingAllocations(uint64_t victim) { state = {.victim = victim}; }
FailingAllocations::~FailingAllocations() { state.armed = false; }
void FailingAllocations::arm(bool armed) { state.armed = armed; }
uint64_t FailingAllocations::count() const { return state.count; }
bool FailingAllocations::failed() const { return state.failed; }

}  // namespace support

void* operator new(std::size_t bytes) {
  if (support::fails(bytes)) throw std::bad_alloc();
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
