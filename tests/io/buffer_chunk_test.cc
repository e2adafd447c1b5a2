// SPDX-License-Identifier: Apache-2.0
#include "io/buffer_chunk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <random>
#include <string>

namespace io {
namespace {

using Block = BufferChunks::Block;

TEST(BufferChunk, BlocksLieAtMultiplesOfTheirSize) {
  BufferChunks chunks;
  std::vector<Block> held;
  for (const uint8_t order : {0, 4, 1, 9, 6, 0, 8, 3}) {
    held.push_back(chunks.take(order));
    EXPECT_EQ(std::bit_cast<uintptr_t>(held.back().memory) % held.back().bytes(), 0u);
  }
  for (const Block& block : held) chunks.give_back(block);
}

TEST(BufferChunk, HoldsExactly512Pages) {
  BufferChunk chunk;
  std::vector<std::byte*> pages;
  while (std::byte* const page = chunk.take(0)) pages.push_back(page);
  EXPECT_EQ(pages.size(), 512u);
  for (std::byte* const page : pages) chunk.give_back(page, 0);
}

TEST(BufferChunk, FreeNeighboursBecomeOneLargerBlock) {
  BufferChunk chunk;
  std::vector<std::byte*> pages;
  while (std::byte* const page = chunk.take(0)) pages.push_back(page);
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(1));
  std::byte* const last = pages.back();
  pages.pop_back();
  for (std::byte* const page : pages) chunk.give_back(page, 0);
  EXPECT_EQ(chunk.take(BufferChunk::kOrderMax), nullptr);
  EXPECT_FALSE(chunk.unused());
  chunk.give_back(last, 0);
  EXPECT_TRUE(chunk.unused());
  std::byte* const whole = chunk.take(BufferChunk::kOrderMax);
  ASSERT_NE(whole, nullptr);
  chunk.give_back(whole, BufferChunk::kOrderMax);
}

TEST(BufferChunk, BlocksNeverOverlap) {
  std::mt19937_64 chance(7);
  BufferChunks chunks;
  struct Held {
    Block block;
    std::byte mark;
  };
  std::vector<Held> held;
  const auto let_go = [&](size_t i) {
    const auto& [block, mark] = held[i];
    EXPECT_TRUE(std::all_of(block.memory, block.memory + block.bytes(),
                            [&](std::byte byte) { return byte == mark; }));
    chunks.give_back(block);
    held.erase(held.begin() + static_cast<ptrdiff_t>(i));
  };
  for (int step = 0; step < 3000; ++step) {
    if (held.size() < 40 && chance() % 2 == 0) {
      const Block block = chunks.take(static_cast<uint8_t>(chance() % 7));
      const auto mark = static_cast<std::byte>(chance());
      std::memset(block.memory, std::to_integer<int>(mark), block.bytes());
      held.push_back({block, mark});
    } else if (!held.empty()) {
      let_go(chance() % held.size());
    }
  }
  while (!held.empty()) let_go(0);
  chunks.shrink_to(0);
  EXPECT_EQ(chunks.mapped_bytes(), 0u);
}

TEST(BufferChunk, IsUnmappedOnlyWhenNothingOfItIsTaken) {
  BufferChunks chunks;
  const Block first = chunks.take(9), second = chunks.take(9), third = chunks.take(0);
  chunks.give_back(first);
  chunks.shrink_to(BufferChunk::kBytes);
  EXPECT_EQ(chunks.mapped_bytes(), 2 * BufferChunk::kBytes);
  std::memset(second.memory, 1, second.bytes());
  std::memset(third.memory, 1, third.bytes());
  chunks.give_back(second);
  chunks.give_back(third);
  chunks.shrink_to(BufferChunk::kBytes);
  EXPECT_EQ(chunks.mapped_bytes(), BufferChunk::kBytes);
}

/// The lines of /proc/self/smaps about the mapping in which `address` lies.
std::string mapping_of(const std::byte* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::string text, line;
  bool inside = false;
  while (std::getline(smaps, line)) {
    uintptr_t from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      inside = from <= std::bit_cast<uintptr_t>(address) && std::bit_cast<uintptr_t>(address) < to;
    }
    if (inside) text += line + "\n";
  }
  return text;
}

TEST(BufferChunk, AsksForAHugePage) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) {
    GTEST_SKIP() << "this kernel has no huge pages";
  }
  BufferChunk chunk;
  std::byte* const block = chunk.take(0);
  const std::string mapping = mapping_of(block);
  EXPECT_NE(mapping.find(" hg"), std::string::npos) << mapping;
  chunk.give_back(block, 0);
}

}  // namespace
}  // namespace io
