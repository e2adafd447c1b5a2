// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "qcow/format/format_error.h"

namespace qcow {

namespace {
constexpr size_t kPartBytes = 4096;
}

Refcounts::Refcounts(io::File& file, std::string image_name, Geometry geometry, HostOffset table,
                     uint64_t table_clusters)
    : file_(file),
      image_name_(std::move(image_name)),
      geometry_(geometry),
      table_offset_(table),
      part_bytes_(std::min<size_t>(kPartBytes, geometry.cluster_bytes())),
      table_clusters_(table_clusters) {}

io::Task<void> Refcounts::read_table() {
  AlignedBytes raw(blocks_max() * 8);
  co_await file_.read(table_offset_.bytes, raw.bytes());
  for (size_t i = 0; i < blocks_max(); ++i) {
    const auto word = io::load_be<uint64_t>(raw.data() + i * 8);
    const auto block = decode_refcount_table_entry(word, geometry_.cluster_bits);
    if (!block) {
      throw FormatError(image_name_, fmt::format("corrupt refcount table entry {:#x}", word));
    }
    if (block->bytes != 0) set_table_entry({i, *block});
  }
}

io::Task<void> Refcounts::load(uint64_t index) {
  if (loaded(index)) co_return;
  assert(has_block(index));
  Block block;
  AlignedBytes read(geometry_.cluster_bytes());
  co_await file_.read(block_offset(index).bytes, read.bytes());
  size_t used = read.size();
  while (used > 0 && read.data()[used - 1] == std::byte{0}) --used;
  block.bytes = AlignedBytes(round_up(used, part_bytes_));
  if (used > 0) std::memcpy(block.bytes.data(), read.data(), used);
  block.part_dirty.resize(geometry_.cluster_bytes() / part_bytes_);
  blocks_.try_emplace(index, std::move(block));
}

void Refcounts::make_fresh(uint64_t index) {
  Block block;
  block.part_dirty.resize(geometry_.cluster_bytes() / part_bytes_);
  blocks_.try_emplace(index, std::move(block));
}

AlignedBytes Refcounts::whole(const Block& block) const {
  AlignedBytes copy(geometry_.cluster_bytes());
  if (block.bytes.size() > 0) std::memcpy(copy.data(), block.bytes.data(), block.bytes.size());
  return copy;
}

uint64_t Refcounts::get(HostCluster cluster) const {
  const Block& block = blocks_.at(block_of(cluster));
  const uint64_t index = geometry_.refcount_index_in_block(cluster);
  if (part_of(index) * part_bytes_ >= block.bytes.size()) return 0;
  return get_refcount(block.bytes.bytes(), index, geometry_.refcount_order);
}

void Refcounts::set(HostCluster cluster, uint64_t refcount) {
  assert(refcount <= geometry_.refcount_max());
  Block& block = blocks_.at(block_of(cluster));
  const uint64_t index = geometry_.refcount_index_in_block(cluster);
  const size_t part = part_of(index);
  if (part * part_bytes_ >= block.bytes.size()) block.bytes.grow((part + 1) * part_bytes_);
  set_refcount(block.bytes.bytes(), index, geometry_.refcount_order, refcount);
  block.part_dirty[part] = true;
  if (!block.dirty) ++dirty_blocks_;
  block.dirty = true;
}

uint64_t Refcounts::used_in_block(uint64_t index) const {
  const Block& block = blocks_.at(index);
  const uint64_t kept = (block.bytes.size() * 8) >> geometry_.refcount_order;
  for (uint64_t used = kept; used > 0; --used) {
    if (get_refcount(block.bytes.bytes(), used - 1, geometry_.refcount_order) != 0) return used;
  }
  return 0;
}

io::Task<void> Refcounts::write_dirty() {
  struct Part {
    uint64_t at;
    AlignedBytes bytes;
  };
  std::vector<Part> parts;
  for (auto& [index, block] : blocks_) {
    if (!block.dirty || !has_block(index)) continue;
    for (size_t part = 0; part < block.part_dirty.size();) {
      size_t end = part;
      while (end < block.part_dirty.size() && block.part_dirty[end]) ++end;
      if (end > part) {
        AlignedBytes copy((end - part) * part_bytes_);
        std::memcpy(copy.data(), block.bytes.data() + part * part_bytes_, copy.size());
        parts.push_back({block_offset(index).bytes + part * part_bytes_, std::move(copy)});
      }
      part = std::max(end, part + 1);
    }
    std::fill(block.part_dirty.begin(), block.part_dirty.end(), false);
    block.dirty = false;
    assert(dirty_blocks_ > 0);
    --dirty_blocks_;
  }
  for (const Part& part : parts) co_await file_.write(part.at, part.bytes.bytes());
}

io::Task<void> Refcounts::write_new_block(uint64_t index, HostOffset at) {
  assert(at && geometry_.offset_in_cluster(at.bytes) == 0 && index < blocks_max());
  AlignedBytes copy;
  const auto found = blocks_.find(index);
  if (found == blocks_.end()) {
    copy = AlignedBytes(geometry_.cluster_bytes());
  } else {
    Block& block = found->second;
    copy = whole(block);
    std::fill(block.part_dirty.begin(), block.part_dirty.end(), false);
    if (block.dirty) --dirty_blocks_;
    block.dirty = false;
  }
  co_await file_.write(at.bytes, copy.bytes());
}

io::Task<void> Refcounts::write_table_entries(std::vector<NewBlock> blocks) {
  assert(!blocks.empty() && blocks.front().index <= blocks.back().index);
  for (const NewBlock& block : blocks) set_table_entry(block);
  const uint64_t entries_per_part = part_bytes_ / 8;
  for (size_t i = 0; i < blocks.size();) {  // ascending by index
    const uint64_t part = blocks[i].index / entries_per_part;
    AlignedBytes bytes(part_bytes_);
    for (uint64_t k = 0; k < entries_per_part; ++k) {
      io::store_be(bytes.data() + k * 8, block_offset(part * entries_per_part + k).bytes);
    }
    co_await file_.write(table_offset_.bytes + part * part_bytes_, bytes.bytes());
    while (i < blocks.size() && blocks[i].index / entries_per_part == part) ++i;
  }
}

io::Task<void> Refcounts::write_new_table(HostOffset at, uint64_t clusters,
                                          std::vector<NewBlock> added) {
  assert(clusters > table_clusters_ && "a table moves only to become larger");
  table_clusters_ = clusters;
  for (const NewBlock& block : added) set_table_entry(block);
  table_offset_ = at;
  AlignedBytes bytes(blocks_max() * 8);
  for (size_t i = 0; i < table_.size(); ++i) io::store_be(bytes.data() + i * 8, table_[i]);
  co_await file_.write(at.bytes, bytes.bytes());
}

void Refcounts::set_table_entry(const NewBlock& block) {
  assert(block.index < blocks_max());
  assert(block.at && geometry_.offset_in_cluster(block.at.bytes) == 0);
  if (table_.size() <= block.index) table_.resize(block.index + 1);
  table_[block.index] = block.at.bytes;
}

void Refcounts::drop_clean(uint64_t keep, uint64_t first, uint64_t end) {
  std::erase_if(blocks_, [&](const auto& entry) {
    const auto& [index, block] = entry;
    const bool kept = index == keep || (index >= first && index < end);
    return !kept && !block.dirty && has_block(index);
  });
}

}  // namespace qcow
