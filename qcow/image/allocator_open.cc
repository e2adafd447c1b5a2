// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cassert>

#include "io/planted_bug.h"
#include "qcow/format/format_error.h"
#include "qcow/format/header.h"
#include "qcow/image/allocator.h"

namespace qcow {

io::Task<void> Allocator::open() {
  co_await refcounts_.read_table();
  for (uint64_t index = refcounts_.blocks_max(); index-- > 0;) {
    if (!refcounts_.has_block(index)) continue;
    co_await refcounts_.load(index);
    const uint64_t used = refcounts_.used_in_block(index);
    if (used > 0) {
      reserve_below(geometry_.block_start(index) + used);
      break;
    }
    refcounts_.drop_clean(index + 1);
  }
}

/// Blocks that the table must hold in the end, those for the blocks' own clusters included.
uint64_t Allocator::blocks_for(uint64_t clusters_missing) const {
  uint64_t present = 0;
  for (uint64_t i = 0; i < refcounts_.blocks_max(); ++i) present += refcounts_.has_block(i) ? 1 : 0;
  uint64_t blocks = 0;
  for (;;) {
    const uint64_t own = blocks > present ? blocks - present : 0;
    const uint64_t needed = divide_up(end_.index + clusters_missing + own, per_block_);
    if (needed <= blocks) return blocks;
    blocks = needed;
  }
}

io::Task<void> Allocator::make_room(uint64_t clusters_missing) {
  assert(end_ > HostCluster{0} && "the header is taken");
  const uint64_t blocks = blocks_for(clusters_missing);
  if (blocks > refcounts_.blocks_max()) co_await move_table(blocks);
  end_max_ = geometry_.block_start(std::min(blocks_for(clusters_missing), refcounts_.blocks_max()));
  co_await install_first_blocks();
  const uint64_t end_block = block_of(end_);
  if (refcounts_.has_block(end_block)) co_await refcounts_.load(end_block);
}

io::Task<std::vector<HostCluster>> Allocator::in_use_but(const std::vector<bool>& named,
                                                         HostCluster from, size_t count_max) {
  std::vector<HostCluster> clusters;
  const HostCluster end = std::min(end_, HostCluster{named.size()});
  for (HostCluster cluster = from; cluster < end && clusters.size() < count_max; ++cluster) {
    if (named[cluster.index]) continue;
    const uint64_t block = block_of(cluster);
    if (!refcounts_.has_block(block)) continue;
    if (!refcounts_.loaded(block)) {
      drop_blocks();
      co_await refcounts_.load(block);
    }
    if (refcounts_.get(cluster) != 0) clusters.push_back(cluster);
  }
  co_return clusters;
}

io::Task<std::optional<HostCluster>> Allocator::first_without_refcount(
    const std::vector<bool>& named) {
  for (HostCluster cluster; cluster.index < named.size(); ++cluster) {
    if (!named[cluster.index]) continue;
    const uint64_t block = block_of(cluster);
    if (!refcounts_.has_block(block)) co_return cluster;
    if (!refcounts_.loaded(block)) {
      drop_blocks();
      co_await refcounts_.load(block);
    }
    if (refcounts_.get(cluster) == 0) co_return cluster;
  }
  co_return std::nullopt;
}

io::Task<void> Allocator::find_free(const std::vector<bool>& named) {
  constexpr size_t kSpansMax = 16 << 10;
  constexpr uint64_t kBlocksMax = 4096;  // 8 TiB of file with 64 KiB clusters
  if (block_of(end_) >= kBlocksMax) co_return;
  assert(ready_.empty() && free_.empty() && space_ == nullptr && "while the image opens");
  const std::vector<bool>* in_use = &named;
  PLANTED_BUG(free_without_table_check, in_use = nullptr)
  const std::vector<Span> spans = co_await unowned({1}, kSpansMax, in_use);  // the header never is
  free_.assign(spans.begin(), spans.end());
}

/// Only while the image opens: nothing else is handed out between the steps.
io::Task<void> Allocator::install_first_blocks() {
  horizon_ = geometry_.block_start(block_of(end_));
  for (;;) {
    plan_blocks();
    if (planned_.empty()) {
      if (horizon_ >= wanted_horizon() || !may_grow()) co_return;
      if (end_ < horizon_) continue;
      co_await install_block_in_itself();
      continue;
    }
    co_await write_refcounts();
    co_await file_.sync_data();
    co_await write_table_entries();
    co_await file_.sync_data();
    co_await committed();
  }
}

/// When every covered cluster is taken: the block lies in the range that it covers.
io::Task<void> Allocator::install_block_in_itself() {
  const uint64_t index = block_of(end_);
  const HostOffset at = geometry_.start_of(end_);
  assert(end_ >= horizon_ && !refcounts_.has_block(index));
  take(end_++);
  co_await refcounts_.write_new_block(index, at);
  co_await file_.sync_data();
  std::vector<Refcounts::NewBlock> block{{index, at}};
  co_await refcounts_.write_table_entries(std::move(block));
  co_await file_.sync_data();
  horizon_ = geometry_.block_start(index + 1);
}

/// Puts a larger refcount table at the end of the file: missing blocks for the place itself, then
/// the table, then, behind a barrier, the header's pointer to it (one sector, so old or new).
io::Task<void> Allocator::move_table(uint64_t blocks_needed) {
  const HostOffset old_table = refcounts_.table_offset();
  const uint64_t old_clusters = refcounts_.table_clusters();
  const HostCluster first = end_;
  uint64_t table_clusters = 0;
  std::vector<uint64_t> missing;
  for (HostCluster last = first;;) {
    missing.clear();
    for (uint64_t i = block_of(first); i <= block_of(last); ++i) {
      if (!refcounts_.has_block(i)) missing.push_back(i);
    }
    const uint64_t entries = blocks_needed + divide_up(table_clusters, per_block_) + 2;
    table_clusters = divide_up(entries, geometry_.refcount_table_entries_per_cluster());
    const HostCluster needed = first + (missing.size() + table_clusters - 1);
    if (needed <= last) break;
    last = needed;
  }
  if (table_clusters * geometry_.cluster_bytes() > kRefcountTableBytesMax) {
    throw FormatError(image_name_, "refcount table is too large");
  }
  std::vector<Refcounts::NewBlock> added;
  for (const uint64_t index : missing) {
    refcounts_.make_fresh(index);
    added.push_back({index, geometry_.start_of(end_++)});
  }
  const HostOffset table = geometry_.start_of(end_);
  end_ += table_clusters;
  assert(end_ - first == missing.size() + table_clusters && "the place that was looked for");
  for (HostCluster cluster = first; cluster < end_; ++cluster) {
    const uint64_t block = block_of(cluster);
    if (refcounts_.has_block(block)) co_await refcounts_.load(block);
    refcounts_.set(cluster, 1);
  }
  for (const Refcounts::NewBlock& block : added) {
    co_await refcounts_.write_new_block(block.index, block.at);
  }
  co_await refcounts_.write_dirty();
  co_await refcounts_.write_new_table(table, table_clusters, added);
  UNLESS_PLANTED(header_before_table) co_await file_.sync_data();

  std::array<std::byte, 12> field;
  io::store_be<uint64_t>(field.data(), table.bytes);
  io::store_be<uint32_t>(field.data() + 8, static_cast<uint32_t>(table_clusters));
  co_await file_.write(Header::kRefcountTableOffset, field);
  co_await file_.sync_data();
  for (uint64_t i = 0; i < old_clusters; ++i) {
    replaced_table_.push_back(geometry_.cluster_of(old_table) + i);
  }
}

}  // namespace qcow
