// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace io {

/// 2 MiB of memory, one huge page where the kernel has them, split into blocks on demand.
///
/// Blocks are 4 KiB … 2 MiB by powers of two and lie at multiples of their size (the buddy system:
/// two free neighbours that make up a larger block become one). So what a block holds lies in one
/// piece of physical memory, and a disk write of 1 MiB has one segment instead of 256.
///
/// Only mapping it can fail. Belongs to one thread. Under AddressSanitizer free blocks are
/// poisoned.
class BufferChunk {
 public:
  static constexpr size_t kPage = 4096;
  static constexpr uint8_t kOrderMax = 9;
  static constexpr size_t kBytes = kPage << kOrderMax;
  static constexpr size_t block_bytes(uint8_t order) { return kPage << order; }

  BufferChunk();  // throws std::bad_alloc
  BufferChunk(const BufferChunk&) = delete;
  ~BufferChunk();

  /// A block of block_bytes(order), or null when none is free.
  std::byte* take(uint8_t order) noexcept;
  void give_back(std::byte* block, uint8_t order) noexcept;
  /// No block is taken.
  bool unused() const noexcept { return free_[kRoot] == kOrderMax + 1; }

 private:
  static constexpr size_t kRoot = 1;
  void update_above(size_t node, uint8_t order) noexcept;

  std::byte* memory_;
  // A binary tree, the children of node n at 2n and 2n+1, for 2 MiB at the root down to 4 KiB:
  // the order, plus one, of the largest free block below a node; 0 when there is none.
  std::array<uint8_t, 2 << kOrderMax> free_;
};

/// The chunks of one pool. Belongs to one thread.
class BufferChunks {
 public:
  struct Block {
    BufferChunk* chunk = nullptr;
    std::byte* memory = nullptr;
    uint8_t order = 0;
    size_t bytes() const { return BufferChunk::block_bytes(order); }
  };

  /// Throws std::bad_alloc when it needs one more chunk and there is no memory.
  Block take(uint8_t order);
  void give_back(const Block& block) noexcept;
  /// Unmaps chunks of which nothing is taken, until the others are at most `bytes` together.
  void shrink_to(uint64_t bytes) noexcept;

  uint64_t mapped_bytes() const { return chunks_.size() * BufferChunk::kBytes; }

 private:
  std::vector<std::unique_ptr<BufferChunk>> chunks_;
};

}  // namespace io
