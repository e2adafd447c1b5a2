#include "qcow/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "qcow/format_error.h"

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
      table_(table_clusters * geometry.refcount_table_entries_per_cluster()) {}

io::Task<void> Refcounts::read_table() {
  AlignedBytes raw(table_.size() * 8);
  co_await file_.read(table_offset_.bytes, raw.bytes());
  for (size_t i = 0; i < table_.size(); ++i) {
    const auto word = io::load_be<uint64_t>(raw.data() + i * 8);
    const auto block = decode_refcount_table_entry(word, geometry_.cluster_bits);
    if (!block) {
      throw FormatError(image_name_, fmt::format("corrupt refcount table entry {:#x}", word));
    }
    table_[i] = block->bytes;
  }
}

io::Task<void> Refcounts::load(uint64_t index) {
  if (loaded(index)) co_return;
  assert(has_block(index));
  Block block;
  block.bytes = AlignedBytes(geometry_.cluster_bytes());
  co_await file_.read(table_[index], block.bytes.bytes());
  block.part_dirty.resize(block.bytes.size() / part_bytes_);
  blocks_.try_emplace(index, std::move(block));
}

void Refcounts::make_fresh(uint64_t index) {
  Block block;
  block.bytes = AlignedBytes(geometry_.cluster_bytes());
  block.part_dirty.resize(block.bytes.size() / part_bytes_);
  blocks_.try_emplace(index, std::move(block));
}

uint64_t Refcounts::get(uint64_t cluster) const {
  const Block& block = blocks_.at(block_of(cluster));
  return get_refcount(block.bytes.bytes(), geometry_.refcount_index_in_block(cluster),
                      geometry_.refcount_order);
}

void Refcounts::set(uint64_t cluster, uint64_t refcount) {
  Block& block = blocks_.at(block_of(cluster));
  const uint64_t index = geometry_.refcount_index_in_block(cluster);
  set_refcount(block.bytes.bytes(), index, geometry_.refcount_order, refcount);
  block.part_dirty[((index << geometry_.refcount_order) / 8) / part_bytes_] = true;
  if (!block.dirty) ++dirty_blocks_;
  block.dirty = true;
}

uint64_t Refcounts::used_in_block(uint64_t index) const {
  const Block& block = blocks_.at(index);
  for (uint64_t used = geometry_.refcounts_per_block(); used > 0; --used) {
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
        parts.push_back({table_[index] + part * part_bytes_, std::move(copy)});
      }
      part = std::max(end, part + 1);
    }
    std::fill(block.part_dirty.begin(), block.part_dirty.end(), false);
    block.dirty = false;
    --dirty_blocks_;
  }
  for (const Part& part : parts) co_await file_.write(part.at, part.bytes.bytes());
}

io::Task<void> Refcounts::write_new_block(uint64_t index, HostOffset at) {
  AlignedBytes copy(geometry_.cluster_bytes());
  const auto found = blocks_.find(index);
  if (found != blocks_.end()) {
    Block& block = found->second;
    std::memcpy(copy.data(), block.bytes.data(), copy.size());
    std::fill(block.part_dirty.begin(), block.part_dirty.end(), false);
    if (block.dirty) --dirty_blocks_;
    block.dirty = false;
  }
  co_await file_.write(at.bytes, copy.bytes());
}

io::Task<void> Refcounts::write_table_entries(std::vector<NewBlock> blocks) {
  for (const NewBlock& block : blocks) table_.at(block.index) = block.at.bytes;
  const uint64_t entries_per_part = part_bytes_ / 8;
  for (size_t i = 0; i < blocks.size();) {  // ascending by index
    const uint64_t part = blocks[i].index / entries_per_part;
    AlignedBytes bytes(part_bytes_);
    for (uint64_t k = 0; k < entries_per_part; ++k) {
      io::store_be(bytes.data() + k * 8, table_[part * entries_per_part + k]);
    }
    co_await file_.write(table_offset_.bytes + part * part_bytes_, bytes.bytes());
    while (i < blocks.size() && blocks[i].index / entries_per_part == part) ++i;
  }
}

io::Task<void> Refcounts::write_new_table(HostOffset at, uint64_t clusters,
                                          std::vector<NewBlock> added) {
  table_.resize(clusters * geometry_.refcount_table_entries_per_cluster());
  for (const NewBlock& block : added) table_.at(block.index) = block.at.bytes;
  table_offset_ = at;
  AlignedBytes bytes(table_.size() * 8);
  for (size_t i = 0; i < table_.size(); ++i) io::store_be(bytes.data() + i * 8, table_[i]);
  co_await file_.write(at.bytes, bytes.bytes());
}

void Refcounts::drop_clean(uint64_t keep, uint64_t first, uint64_t end) {
  std::erase_if(blocks_, [&](const auto& entry) {
    const auto& [index, block] = entry;
    const bool kept = index == keep || (index >= first && index < end);
    return !kept && !block.dirty && has_block(index);
  });
}

}  // namespace qcow
