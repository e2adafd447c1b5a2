// SPDX-License-Identifier: Apache-2.0
#include "io/buffer_chunk.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>

#ifdef __has_feature  // clang
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace io {
namespace {

/// Memory at a multiple of its size, which is what a huge page needs.
std::byte* map_aligned(size_t bytes) {
  void* const mapped = ::mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* const from = static_cast<std::byte*>(mapped);
  const size_t before = -std::bit_cast<uintptr_t>(from) % bytes;
  if (before > 0) ::munmap(from, before);
  ::munmap(from + before + bytes, bytes - before);
  assert(std::bit_cast<uintptr_t>(from + before) % bytes == 0);
  return from + before;
}

}  // namespace

BufferChunk::BufferChunk() : memory_(map_aligned(kBytes)) {
  // A kernel without huge pages refuses, and nothing but speed is lost.
  ::madvise(memory_, kBytes, MADV_HUGEPAGE);
  for (size_t node = kRoot; node < free_.size(); ++node) {
    free_.at(node) = static_cast<uint8_t>(kOrderMax + 2 - std::bit_width(node));
  }
  ASAN_POISON_MEMORY_REGION(memory_, kBytes);
}

BufferChunk::~BufferChunk() {
  assert(unused() && "a chunk outlives its blocks");
  ASAN_UNPOISON_MEMORY_REGION(memory_, kBytes);
  ::munmap(memory_, kBytes);
}

std::byte* BufferChunk::take(uint8_t order) noexcept {
  assert(order <= kOrderMax);
  if (free_[kRoot] <= order) return nullptr;
  size_t node = kRoot;
  for (uint8_t level = kOrderMax; level > order; --level) {
    node = 2 * node;
    if (free_.at(node) <= order) ++node;
  }
  assert(free_.at(node) == order + 1 && "a block is taken whole");
  free_.at(node) = 0;
  update_above(node, order);
  const size_t index = node - (size_t{1} << (kOrderMax - order));
  std::byte* const block = memory_ + index * block_bytes(order);
  ASAN_UNPOISON_MEMORY_REGION(block, block_bytes(order));
  return block;
}

void BufferChunk::give_back(std::byte* block, uint8_t order) noexcept {
  assert(block >= memory_ && block < memory_ + kBytes && "a block returns to its own chunk");
  assert(static_cast<size_t>(block - memory_) % block_bytes(order) == 0);
  const auto index = static_cast<size_t>(block - memory_) / block_bytes(order);
  const size_t node = (size_t{1} << (kOrderMax - order)) + index;
  assert(free_.at(node) == 0 && "a block is given back once");
  free_.at(node) = order + 1;
  update_above(node, order);
  ASAN_POISON_MEMORY_REGION(block, block_bytes(order));
}

void BufferChunk::update_above(size_t node, uint8_t order) noexcept {
  while (node > kRoot) {
    node /= 2;
    ++order;
    const uint8_t left = free_.at(2 * node), right = free_.at(2 * node + 1);
    const bool whole = left == order && right == order;
    free_.at(node) = whole ? static_cast<uint8_t>(order + 1) : std::max(left, right);
  }
}

BufferChunks::Block BufferChunks::take(uint8_t order) {
  // From the oldest that has one, so that the younger ones become free as a whole.
  for (const auto& chunk : chunks_) {
    if (std::byte* const memory = chunk->take(order)) return {chunk.get(), memory, order};
  }
  chunks_.push_back(std::make_unique<BufferChunk>());
  BufferChunk& chunk = *chunks_.back();
  return {&chunk, chunk.take(order), order};
}

void BufferChunks::give_back(const Block& block) noexcept {
  assert(block.chunk != nullptr && block.memory != nullptr);
  block.chunk->give_back(block.memory, block.order);
}

void BufferChunks::shrink_to(uint64_t bytes) noexcept {
  for (size_t i = chunks_.size(); i-- > 0 && mapped_bytes() > bytes;) {
    if (chunks_[i]->unused()) chunks_.erase(chunks_.begin() + static_cast<ptrdiff_t>(i));
  }
}

}  // namespace io
