// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/allocator.h"

#include <cassert>

#include "io/failure.h"

namespace qcow {

Allocator::Allocator(io::File& file, std::string image_name, Geometry geometry,
                     HostOffset refcount_table, uint64_t refcount_table_clusters,
                     uint64_t cover_bytes)
    : file_(file),
      image_name_(image_name),
      geometry_(geometry),
      refcounts_(file, std::move(image_name), geometry, refcount_table, refcount_table_clusters),
      per_block_(geometry.refcounts_per_block()),
      cover_clusters_(geometry.clusters_for(cover_bytes)),
      blocks_at_once_(cover_clusters_ / per_block_ + 2) {}

HostCluster Allocator::wanted_horizon() const { return std::min(end_ + cover_clusters_, end_max_); }

uint64_t Allocator::reserve_for_blocks() const { return may_grow() ? blocks_at_once_ : 0; }

uint64_t Allocator::room() const {
  const uint64_t reserve = reserve_for_blocks();
  const uint64_t left = horizon_ > end_ ? horizon_ - end_ : 0;
  return left > reserve ? left - reserve : 0;
}

uint64_t Allocator::expect_more(uint64_t clusters) {
  if (clusters == 0) return 0;
  clusters += divide_up(clusters, per_block_);
  end_max_ = std::min(end_max_ + clusters, geometry_.block_start(refcounts_.blocks_max()));
  return clusters;
}

HostOffset Allocator::allocate(uint64_t count) {
  assert(count > 0);
  if (count == 1 && ready_clusters_ > 0) {
    Span& span = ready_.front();
    const HostCluster cluster = span.first++;
    assert(cluster > HostCluster{0} && cluster < end_ && "was free when the image was opened");
    if (--span.count == 0) ready_.pop_front();
    --ready_clusters_;
    refcounts_.set(cluster, 1);
    return geometry_.start_of(cluster);
  }
  if (end_ + count > horizon_) {
    throw io::failure("allocate", file_.path(), end_bytes(), count << geometry_.cluster_bits,
                      EFBIG);
  }
  const HostOffset at = geometry_.start_of(end_);
  for (; count > 0; --count) take(end_++);
  return at;
}

/// Sets the refcount of a cluster at the end of the file to 1.
void Allocator::take(HostCluster cluster) {
  // Behind the end that open() found, every block holds zeroes only.
  const uint64_t block = block_of(cluster);
  if (!refcounts_.loaded(block)) refcounts_.make_fresh(block);
  assert(cluster > HostCluster{0} && refcounts_.get(cluster) == 0 && "a cluster has one owner");
  refcounts_.set(cluster, 1);
}

io::Task<void> Allocator::give_back(std::vector<HostCluster>& clusters) {
  std::vector<HostCluster> sorted = std::exchange(clusters, {});
  std::sort(sorted.begin(), sorted.end());
  uint64_t last_block = ~uint64_t{0};
  for (const HostCluster cluster : sorted) {
    const uint64_t block = block_of(cluster);
    if (!refcounts_.has_block(block)) continue;
    if (block != last_block && last_block != ~uint64_t{0}) {
      co_await refcounts_.write_dirty();  // memory stays bounded however scattered they are
      drop_blocks();
    }
    last_block = block;
    co_await refcounts_.load(block);
    const uint64_t refcount = refcounts_.get(cluster);
    if (refcount > 0) refcounts_.set(cluster, refcount - 1);
  }
}

void Allocator::plan_blocks() {
  assert(planned_.empty());
  while (horizon_ < wanted_horizon() && refcounts_.has_block(block_of(horizon_))) {
    horizon_ += per_block_;
  }
  for (uint64_t index = block_of(horizon_); geometry_.block_start(index) < wanted_horizon() &&
                                            index < refcounts_.blocks_max() && end_ < horizon_;
       ++index) {
    // One that exists ahead of a gap needs none; it is passed once the gap is closed.
    if (refcounts_.has_block(index)) break;
    planned_.push_back({index, allocate(1)});
  }
}

io::Task<void> Allocator::write_refcounts() {
  co_await refcounts_.write_dirty();
  for (const Refcounts::NewBlock& block : planned_) {
    co_await refcounts_.write_new_block(block.index, block.at);
  }
}

io::Task<void> Allocator::write_table_entries() {
  if (!planned_.empty()) co_await refcounts_.write_table_entries(planned_);
}

io::Task<void> Allocator::committed() {
  assert(planned_.empty() || planned_.back().index >= block_of(horizon_));
  if (!planned_.empty()) horizon_ = geometry_.block_start(planned_.back().index + 1);
  planned_.clear();
  drop_blocks();
  co_await prepare_free();
}

/// Blocks behind it stay on the disk, however scattered the free clusters are.
uint64_t Allocator::ready_window_end() const {
  constexpr uint64_t kBytes = 1 << 20;
  const uint64_t blocks =
      kBytes / std::max<uint64_t>(geometry_.cluster_bytes(), AlignedBytes::kAlignment);
  const Span& first = ready_.empty() ? free_.front() : ready_.front();
  return block_of(first.first) + std::max<uint64_t>(blocks, 1);
}

io::Task<void> Allocator::prepare_free() {
  constexpr size_t kStepsMax =
      1024;  // each asks the file system once, or a few times when it is full
  for (size_t step = 0; space_ != nullptr && !free_.empty() && step < kStepsMax; ++step) {
    // For two commits: one is written down while the next one's data arrive.
    const uint64_t wanted = 2 * space_->ahead() >> geometry_.cluster_bits;
    if (ready_clusters_ >= wanted) co_return;
    if (block_of(free_.front().first) >= ready_window_end()) co_return;
    const bool more = co_await make_ready(wanted - ready_clusters_);
    if (!more) co_return;
  }
}

/// The first free clusters, in the range of one refcount block. False when there is no space for
/// any. Of what does not fit as a whole, the file system may have allocated the beginning.
io::Task<bool> Allocator::make_ready(uint64_t count_max) {
  const Span next = free_.front();
  assert(next.count > 0 && next.end() <= end_);
  const uint64_t block = block_of(next.first);
  uint64_t count = std::min({next.count, count_max, geometry_.block_start(block + 1) - next.first});
  co_await refcounts_.load(block);
  for (;; count /= 2) {
    if (count == 0) co_return false;
    const uint64_t at = geometry_.start_of(next.first).bytes;
    const FileSpace::Filled filled = co_await space_->fill(at, count << geometry_.cluster_bits);
    if (filled == FileSpace::Filled::yes) break;
    if (filled == FileSpace::Filled::unknown) co_return false;
  }
  // Clusters were handed out meanwhile, so what is ready is looked up here.
  if (!ready_.empty() && ready_.back().end() == next.first) {
    ready_.back().count += count;
  } else {
    ready_.push_back({next.first, count});
  }
  ready_clusters_ += count;
  Span& rest = free_.front();
  assert(rest.first == next.first && rest.count >= count && "only this step takes free ones");
  rest.first += count;
  rest.count -= count;
  if (rest.count == 0) free_.pop_front();
  co_return true;
}

void Allocator::drop_blocks() {
  const uint64_t end_block = block_of(end_);
  if (ready_.empty()) {
    refcounts_.drop_clean(end_block);
  } else {
    refcounts_.drop_clean(end_block, block_of(ready_.front().first), ready_window_end());
  }
}

io::Task<void> Allocator::lower_end() {
  assert(planned_.empty() && "no commit is under way");
  while (end_ > HostCluster{0}) {
    const HostCluster last = end_ - 1;
    const uint64_t block = block_of(last);
    if (!refcounts_.has_block(block)) co_return;
    co_await refcounts_.load(block);
    if (refcounts_.get(last) != 0) co_return;
    end_ = last;
  }
}

io::Task<uint64_t> Allocator::refcount_of(HostCluster cluster) {
  const uint64_t block = block_of(cluster);
  if (!refcounts_.has_block(block)) co_return 0;
  if (!refcounts_.loaded(block)) {
    drop_blocks();
    co_await refcounts_.load(block);
  }
  co_return refcounts_.get(cluster);
}

io::Task<std::vector<Allocator::Span>> Allocator::unowned(HostCluster from, size_t count_max,
                                                          const std::vector<bool>* named) {
  std::vector<Span> spans;
  for (HostCluster cluster = from; cluster < end_ && spans.size() < count_max; ++cluster) {
    const uint64_t block = block_of(cluster);
    if (!refcounts_.has_block(block)) continue;
    if (named != nullptr && cluster.index < named->size() && (*named)[cluster.index]) continue;
    if (!refcounts_.loaded(block)) {
      drop_blocks();
      co_await refcounts_.load(block);
    }
    if (refcounts_.get(cluster) != 0) continue;
    if (!spans.empty() && spans.back().end() == cluster) {
      ++spans.back().count;
    } else {
      spans.push_back({cluster, 1});
    }
  }
  co_return spans;
}

}  // namespace qcow
