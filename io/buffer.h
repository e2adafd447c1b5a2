// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "io/buffer_chunk.h"
#include "io/memory_budget.h"
#include "io/sync.h"
#include "io/task.h"

namespace io {

class BufferPool;

/// A piece of pooled memory, moved from the socket to the disk without a copy, and given back to
/// its pool by the destructor. The pool outlives its buffers.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

  /// Forgets the bytes after the first `size`; the memory stays as it is.
  void shrink(size_t size);

 private:
  friend class BufferPool;
  void swap(Buffer& other) noexcept;

  BufferPool* pool_ = nullptr;
  BufferChunks::Block block_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Page-aligned memory within a budget of bytes, its own or one that it shares with other pools.
/// Buffers are blocks of chunks of 2 MiB; a chunk is kept for reuse, because memory that was
/// touched before is ten times cheaper than fresh pages.
///
/// Invariant: what is handed out does not exceed the lease from the budget, but for buffers over
/// budget; chunks of which nothing is handed out are kept only while all chunks fit the lease.
/// Belongs to one executor thread. acquire() waits when the budget is used up; it never fails for
/// lack of it.
class BufferPool {
 public:
  static constexpr size_t kPage = BufferChunk::kPage;
  static constexpr size_t kBufferBytesMax = BufferChunk::kBytes;

  BufferPool(Executor& executor, uint64_t budget_bytes);
  BufferPool(Executor& executor, std::shared_ptr<MemoryBudget> budget);
  BufferPool(const BufferPool&) = delete;
  ~BufferPool();

  /// A buffer of `size` bytes (from 1; with phase % kPage up to kBufferBytesMax) whose address ≡
  /// `phase` modulo kPage, so that a payload for guest offset `phase` can be written with O_DIRECT
  /// as it lies.
  /// With a `key`, an empty buffer when withdraw(key) ended the wait.
  Task<Buffer> acquire(size_t size, uint64_t phase = 0, const void* key = nullptr);

  /// Ends the wait of the first who waits under `key`; false when none does.
  bool withdraw(const void* key) { return semaphore_.withdraw(key); }

  /// The same at once, or an empty buffer when it would have to wait.
  Buffer try_acquire(size_t size, uint64_t phase = 0);

  /// The same at once, over the budget if need be: for the few buffers without which the budget
  /// could never be given back (completing a partial cluster, say).
  Buffer acquire_over_budget(size_t size, uint64_t phase = 0);

  uint64_t bytes_in_use() const { return in_use_; }
  /// In use or kept for reuse.
  uint64_t bytes_mapped() const { return chunks_.mapped_bytes(); }

 private:
  friend class Buffer;
  class Membership;

  static uint8_t order_for(size_t size, uint64_t phase);
  Buffer make(size_t size, uint64_t phase, uint8_t order);
  /// The invariant above: what is free or handed out was leased, or granted over the budget.
  bool within_lease() const { return semaphore_.available() + in_use_ <= leased_ + over_; }
  void drop_unused_chunks() noexcept { chunks_.shrink_to(leased_ + over_); }
  void lease_for(uint64_t bytes);
  void serve_waiting() noexcept;
  void give_surplus() noexcept;
  void unlease(uint64_t bytes) noexcept;
  void give_back(const BufferChunks::Block& block) noexcept;

  Semaphore semaphore_;
  std::shared_ptr<MemoryBudget> budget_;
  std::shared_ptr<Membership> membership_;
  uint64_t leased_ = 0;
  uint64_t in_use_ = 0;
  uint64_t over_ = 0;  // bytes handed out beyond the semaphore's grant
  BufferChunks chunks_;
};

}  // namespace io
