// SPDX-License-Identifier: Apache-2.0
#include "tests/support/failing_allocations.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "io/buffer_chunk.h"

namespace support {
namespace {

struct Plan {
  bool armed = false;
  uint64_t count = 0;
  uint64_t victim = UINT64_MAX;
};
thread_local Plan plan;

/// True when this allocation is to fail.
bool next_fails() noexcept { return plan.armed && plan.count++ == plan.victim; }

void* allocate(size_t bytes, size_t alignment) noexcept {
  if (next_fails()) return nullptr;
  bytes = std::max<size_t>(bytes, 1);
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes);
  void* memory = nullptr;
  return ::posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}

void* allocate_or_throw(size_t bytes, size_t alignment) {
  void* const memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

FailingAllocations::FailingAllocations(uint64_t victim) { plan = {false, 0, victim}; }
FailingAllocations::~FailingAllocations() { plan = {}; }
void FailingAllocations::arm(bool armed) { plan.armed = armed; }
uint64_t FailingAllocations::count() const { return plan.count; }
bool FailingAllocations::failed() const { return plan.count > plan.victim; }

}  // namespace support

using support::allocate;
using support::allocate_or_throw;

void* operator new(size_t bytes) { return allocate_or_throw(bytes, 1); }
void* operator new[](size_t bytes) { return allocate_or_throw(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<size_t>(alignment));
}
void* operator new[](size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<size_t>(alignment));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes, 1); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes, 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

// Linked with --wrap. A pool seldom maps memory, so its blocks fail one by one here.
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  return support::next_fails() ? nullptr : __real_aligned_alloc(alignment, bytes);
}
// io::BufferChunks::take(uint8_t)
io::BufferChunks::Block __real__ZN2io12BufferChunks4takeEh(io::BufferChunks*, uint8_t order);
io::BufferChunks::Block __wrap__ZN2io12BufferChunks4takeEh(io::BufferChunks* chunks,
                                                           uint8_t order) {
  if (support::next_fails()) throw std::bad_alloc();
  return __real__ZN2io12BufferChunks4takeEh(chunks, order);
}
// NOLINTEND(bugprone-reserved-identifier)
}
