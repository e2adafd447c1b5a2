#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

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

  /// Forgets the bytes behind the first `size`; the memory stays as it is.
  void shrink(size_t size);

 private:
  friend class BufferPool;
  void swap(Buffer& other) noexcept;

  BufferPool* pool_ = nullptr;
  std::byte* block_ = nullptr;  // page-aligned start of the memory
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  uint8_t size_class_ = 0;
};

/// Page-aligned memory within a budget of bytes, its own or one that it shares with other pools.
/// Freed blocks are kept and handed out again, last in first out, because memory that was touched
/// before is ten times cheaper than fresh pages.
///
/// Invariant: what is handed out and what is kept for reuse do not exceed the lease from the
/// budget, but for buffers over budget. Belongs to one executor thread. acquire() waits when the
/// budget is used up; it never fails for lack of it.
class BufferPool {
 public:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kBufferBytesMax = 2 << 20;

  BufferPool(Executor& executor, uint64_t budget_bytes);
  BufferPool(Executor& executor, std::shared_ptr<MemoryBudget> budget);
  BufferPool(const BufferPool&) = delete;
  ~BufferPool();

  /// A buffer of `size` bytes (1 … kBufferBytesMax) whose address ≡ `phase` modulo kPage, so that
  /// a payload for guest offset `phase` can be written with O_DIRECT as it lies.
  /// With a `key`, an empty buffer when withdraw(key) ended the wait.
  Task<Buffer> acquire(size_t size, uint64_t phase = 0, const void* key = nullptr);

  /// Ends the wait of the first who waits under `key`; false when nobody does.
  bool withdraw(const void* key) { return semaphore_.withdraw(key); }

  /// The same at once, or an empty buffer when it would have to wait.
  Buffer try_acquire(size_t size, uint64_t phase = 0);

  /// The same at once, over the budget if need be: for the few buffers without which the budget
  /// could never be given back (completing a partial cluster, say).
  Buffer acquire_over_budget(size_t size, uint64_t phase = 0);

  uint64_t bytes_in_use() const { return in_use_; }

 private:
  friend class Buffer;
  class Membership;
  // Blocks of 4 KiB … 2 MiB by powers of two, each with one page more for the phase.
  static constexpr size_t kSizeClasses = 10;

  /// Blocks that wait for reuse, last in first out. The link lies in the block itself, so that
  /// giving one back, which destructors do, cannot fail.
  class FreeBlocks {
   public:
    bool empty() const noexcept { return last_ == nullptr; }
    void push(std::byte* block) noexcept;
    std::byte* pop() noexcept;

   private:
    std::byte* last_ = nullptr;
  };

  static uint8_t size_class_for(size_t bytes);
  static size_t block_bytes(uint8_t size_class) { return (kPage << size_class) + kPage; }
  Buffer make(size_t size, uint64_t phase, uint8_t size_class);
  std::byte* new_block(uint8_t size_class);
  void drop_free_blocks() noexcept;
  void lease_for(uint64_t bytes);
  void serve_waiting() noexcept;
  void give_surplus() noexcept;
  void unlease(uint64_t bytes) noexcept;
  void give_back(std::byte* block, uint8_t size_class) noexcept;

  Semaphore semaphore_;
  std::shared_ptr<MemoryBudget> budget_;
  std::shared_ptr<Membership> membership_;
  uint64_t leased_ = 0;
  uint64_t in_use_ = 0;
  uint64_t over_ = 0;  // bytes handed out beyond the semaphore's grant
  uint64_t held_ = 0;  // bytes of all blocks, in use and free
  std::array<FreeBlocks, kSizeClasses> free_;
};

}  // namespace io
