#include "io/buffer.h"

#include <bit>
#include <cassert>
#include <cstdlib>
#include <new>

namespace io {

Buffer::~Buffer() {
  if (pool_) pool_->give_back(block_, size_class_);
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
  std::swap(size_class_, other.size_class_);
}

BufferPool::BufferPool(Executor& executor, uint64_t budget_bytes)
    : semaphore_(executor, budget_bytes), budget_(budget_bytes) {
  assert(budget_bytes >= 2 * kBufferBytesMax && "the largest buffer must fit the budget");
}

BufferPool::~BufferPool() {
  assert(in_use_ == 0 && "a pool outlives its buffers");
  for (const auto& blocks : free_) {
    for (std::byte* const block : blocks) std::free(block);
  }
}

uint8_t BufferPool::size_class_for(size_t bytes) {
  const size_t pages = (bytes + kPage - 1) / kPage;
  return static_cast<uint8_t>(std::bit_width(pages - 1));
}

std::byte* BufferPool::new_block(uint8_t size_class) {
  const size_t bytes = block_bytes(size_class);
  if (held_ + bytes > budget_) drop_free_blocks(held_ + bytes - budget_);
  auto* const block = static_cast<std::byte*>(std::aligned_alloc(kPage, bytes));
  if (block == nullptr) throw std::bad_alloc();
  held_ += bytes;
  return block;
}

/// Makes room for a block of one size by freeing kept ones of other sizes, largest first.
void BufferPool::drop_free_blocks(size_t bytes) {
  size_t dropped = 0;
  for (size_t size_class = kSizeClasses; size_class-- > 0 && dropped < bytes;) {
    auto& blocks = free_.at(size_class);
    while (!blocks.empty() && dropped < bytes) {
      std::free(blocks.back());
      blocks.pop_back();
      dropped += block_bytes(static_cast<uint8_t>(size_class));
    }
  }
  held_ -= dropped;
}

Buffer BufferPool::make(size_t size, uint64_t phase, uint8_t size_class) {
  auto& blocks = free_.at(size_class);
  std::byte* block = nullptr;
  if (!blocks.empty()) {
    block = blocks.back();
    blocks.pop_back();
  } else {
    block = new_block(size_class);
  }
  in_use_ += block_bytes(size_class);
  Buffer buffer;
  buffer.pool_ = this;
  buffer.block_ = block;
  buffer.data_ = block + phase % kPage;
  buffer.size_ = size;
  buffer.size_class_ = size_class;
  return buffer;
}

Task<Buffer> BufferPool::acquire(size_t size, uint64_t phase) {
  assert(size > 0 && size <= kBufferBytesMax);
  const uint8_t size_class = size_class_for(size);
  co_await semaphore_.acquire(block_bytes(size_class));
  co_return make(size, phase, size_class);
}

Buffer BufferPool::try_acquire(size_t size, uint64_t phase) {
  assert(size > 0 && size <= kBufferBytesMax);
  const uint8_t size_class = size_class_for(size);
  if (!semaphore_.try_acquire(block_bytes(size_class))) return {};
  return make(size, phase, size_class);
}

Buffer BufferPool::acquire_over_budget(size_t size, uint64_t phase) {
  Buffer buffer = try_acquire(size, phase);
  if (buffer.data() != nullptr) return buffer;
  const uint8_t size_class = size_class_for(size);
  over_ += block_bytes(size_class);
  return make(size, phase, size_class);
}

void BufferPool::give_back(std::byte* block, uint8_t size_class) {
  const size_t bytes = block_bytes(size_class);
  in_use_ -= bytes;
  if (over_ >= bytes) {
    // Blocks are alike: any one given back settles what was handed out beyond the budget.
    over_ -= bytes;
    held_ -= bytes;
    std::free(block);
    return;
  }
  free_.at(size_class).push_back(block);
  semaphore_.release(bytes);
}

}  // namespace io
