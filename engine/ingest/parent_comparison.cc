// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/parent_comparison.h"

#include <algorithm>
#include <array>

#include "engine/ingest/disk_layout.h"
#include "engine/ingest/entropy_sampler.h"

namespace engine {
namespace {

/// As much as there is, from `offset`.
io::Task<std::vector<std::byte>> read_begin(io::BlockDevice& disk, uint64_t offset) {
  if (offset >= disk.size()) co_return std::vector<std::byte>();
  std::vector<std::byte> bytes(std::min<uint64_t>(kLayoutBytes, disk.size() - offset));
  co_await disk.read(offset, bytes);
  co_return bytes;
}

/// The partition table first, unless the disk has none.
io::Task<std::vector<LayoutItem>> layout_of(io::BlockDevice& disk) {
  std::vector<LayoutItem> items;
  std::vector<std::byte> begin = co_await read_begin(disk, 0);
  if (auto whole = decode_superblock(begin, 0)) {
    items.push_back(std::move(*whole));
    co_return items;
  }
  auto table = decode_partition_table(begin);
  if (!table) co_return items;
  items.push_back(std::move(table->item));
  for (const uint64_t offset : table->partition_offsets) {
    if (offset == 0) continue;
    begin = co_await read_begin(disk, offset);
    if (auto found = decode_superblock(begin, offset)) items.push_back(std::move(*found));
  }
  co_return items;
}

}  // namespace

io::Task<ParentComparison> compare_with_parent(io::BlockDevice& image, io::BlockDevice& parents,
                                               std::vector<uint64_t> incompressible_places) {
  ParentComparison comparison;
  const std::vector<LayoutItem> before = co_await layout_of(parents);
  const std::vector<LayoutItem> now = co_await layout_of(image);
  LayoutComparison layout = compare_layouts(before, now);
  comparison.layout_changes = std::move(layout.changes);
  comparison.is_another_disk = layout.is_another_disk;
  std::ranges::sort(incompressible_places);
  std::array<std::byte, kEntropyBlockBytes> block;
  for (const uint64_t offset : incompressible_places) {
    if (offset + block.size() > parents.size()) continue;  // the disk has grown
    co_await parents.read(offset, block);
    ++comparison.samples;
    if (judge_block(block) == BlockKind::compressible) ++comparison.were_compressible;
  }
  co_return comparison;
}

}  // namespace engine
