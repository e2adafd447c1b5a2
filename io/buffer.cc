// SPDX-License-Identifier: Apache-2.0
#include "io/buffer.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>

namespace io {

Buffer::~Buffer() {
  if (pool_) pool_->give_back(block_);
}

void Buffer::shrink(size_t size) {
  assert(size <= size_);
  size_ = size;
}

void Buffer::swap(Buffer& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(block_, other.block_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

namespace {

/// Leases are taken in such steps, so that most buffers need no lock.
constexpr uint64_t kLeaseBytes = 8 << 20;

}  // namespace

/// The pool, as long as it lives, for calls that the budget has posted.
class BufferPool::Membership final : public MemoryBudget::Member {
 public:
  Membership(Executor& executor, BufferPool& pool) : Member(executor), pool_(pool) {}
  void more_is_free() noexcept override { pool_.serve_waiting(); }
  void give_surplus() noexcept override { pool_.give_surplus(); }

 private:
  BufferPool& pool_;
};

BufferPool::BufferPool(Executor& executor, uint64_t budget_bytes)
    : BufferPool(executor, std::make_shared<MemoryBudget>(budget_bytes)) {}

BufferPool::BufferPool(Executor& executor, std::shared_ptr<MemoryBudget> budget)
    : semaphore_(executor, 0),
      budget_(std::move(budget)),
      membership_(std::make_shared<Membership>(executor, *this)) {
  assert(budget_->total() >= 2 * kBufferBytesMax && "the largest buffer must fit the budget");
  budget_->join(membership_);
}

BufferPool::~BufferPool() {
  assert(in_use_ == 0 && "a pool outlives its buffers");
  assert(within_lease());
  budget_->give_back(*membership_, leased_);
}

uint8_t BufferPool::order_for(size_t size, uint64_t phase) {
  assert(size > 0 && phase % kPage + size <= kBufferBytesMax);
  const size_t pages = (phase % kPage + size + kPage - 1) / kPage;
  return static_cast<uint8_t>(std::bit_width(pages - 1));
}

/// Leases what the semaphore lacks for `bytes`, if the budget has it.
void BufferPool::lease_for(uint64_t bytes) {
  const uint64_t ready = semaphore_.contended() ? 0 : semaphore_.available();
  if (ready >= bytes) return;
  const uint64_t least = bytes - ready;
  const uint64_t leased = budget_->lease(*membership_, least, std::max(least, kLeaseBytes));
  leased_ += leased;
  semaphore_.grow(leased);
  assert(within_lease());
}

void BufferPool::serve_waiting() noexcept {
  while (const uint64_t missing = semaphore_.missing()) {
    try {
      const uint64_t leased = budget_->lease(*membership_, missing, missing);
      if (leased == 0) return;  // waits again
      leased_ += leased;
    } catch (const std::bad_alloc&) {
      over_ += missing;  // it could not be notified again: better beyond the budget than never
    }
    semaphore_.grow(missing);
  }
}

/// Another pool waits: whatever is not needed here at the moment goes back, memory and all.
void BufferPool::give_surplus() noexcept {
  const uint64_t surplus = semaphore_.available();
  if (surplus > 0 && semaphore_.try_acquire(surplus)) unlease(surplus);
}

/// Of what is taken.
void BufferPool::unlease(uint64_t bytes) noexcept {
  assert(bytes <= leased_ && "what was handed out over the budget is not given back to it");
  semaphore_.shrink(bytes);
  leased_ -= bytes;
  drop_unused_chunks();
  budget_->give_back(*membership_, bytes);
}

Buffer BufferPool::make(size_t size, uint64_t phase, uint8_t order) {
  Buffer buffer;
  assert(BufferChunk::block_bytes(order) >= phase % kPage + size);
  buffer.block_ = chunks_.take(order);
  buffer.pool_ = this;
  buffer.data_ = buffer.block_.memory + phase % kPage;
  buffer.size_ = size;
  in_use_ += BufferChunk::block_bytes(order);
  return buffer;
}

Task<Buffer> BufferPool::acquire(size_t size, uint64_t phase, const void* key) {
  const uint8_t order = order_for(size, phase);
  const uint64_t bytes = BufferChunk::block_bytes(order);
  lease_for(bytes);
  if (!co_await semaphore_.acquire(bytes, key)) co_return Buffer();
  Grant granted(semaphore_, bytes);
  Buffer buffer = make(size, phase, order);
  granted.keep();
  assert(within_lease());
  co_return buffer;
}

Buffer BufferPool::try_acquire(size_t size, uint64_t phase) {
  const uint8_t order = order_for(size, phase);
  const uint64_t bytes = BufferChunk::block_bytes(order);
  if (semaphore_.contended()) return {};
  lease_for(bytes);
  if (!semaphore_.try_acquire(bytes)) return {};
  Grant granted(semaphore_, bytes);
  Buffer buffer = make(size, phase, order);
  granted.keep();
  assert(within_lease());
  return buffer;
}

Buffer BufferPool::acquire_over_budget(size_t size, uint64_t phase) {
  Buffer buffer = try_acquire(size, phase);
  if (buffer.data() != nullptr) return buffer;
  const uint8_t order = order_for(size, phase);
  buffer = make(size, phase, order);
  over_ += BufferChunk::block_bytes(order);
  assert(within_lease());
  return buffer;
}

void BufferPool::give_back(const BufferChunks::Block& block) noexcept {
  assert(block.bytes() <= in_use_);
  chunks_.give_back(block);
  in_use_ -= block.bytes();
  // Bytes are alike: any given back settle first what was handed out beyond the budget.
  const uint64_t settled = std::min(over_, block.bytes());
  const uint64_t bytes = block.bytes() - settled;
  over_ -= settled;
  if (settled > 0) drop_unused_chunks();
  if (bytes == 0) return;
  // A pool that has more than its share serves others before its own.
  const bool owed =
      budget_->has_waiting() && (!semaphore_.contended() || leased_ > budget_->fair_share());
  if (owed) {
    unlease(bytes);
  } else {
    semaphore_.release(bytes);
  }
  assert(within_lease());
}

}  // namespace io
