#include <algorithm>
#include <cassert>

#include "io/task_scope.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/image_parts.h"

namespace qcow {

/// Stores a partial cluster whose gaps, if it has any, are zeroes. Until its mapping says so it
/// stays where a commit looks for it, because its bytes were acknowledged.
io::Task<void> Image::finish_partial(uint64_t cluster, RangeQueue::Hold hold, bool detect_zeroes) {
  if (detect_zeroes && partials_->find(cluster)->valid_is_zero()) {
    co_await zero_clusters(cluster, 1);
    co_return;
  }
  const auto held = std::make_shared<HeldWrite>();
  held->hold = std::move(hold);
  held->completed = co_await io::Grant::acquire(completed_, geometry_.cluster_bytes());
  L2Table* const table = co_await table_for_update(geometry_.l1_index_of(cluster));
  store_partial(held, *table, cluster);
}

/// From look-up to submission without a suspension point, as place_in_table(). Zeroes are not
/// written where the file has never been written, if that saves more than the writes it takes.
void Image::store_partial(const std::shared_ptr<HeldWrite>& held, L2Table& table,
                          uint64_t cluster) {
  if (failure_) std::rethrow_exception(failure_);
  map_->require_sound(table, cluster, 1);
  content_unknown_ = true;  // until every write is submitted
  PartialCluster partial = partials_->take(cluster);
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const HostOffset end = geometry_.host_offset(allocator_->end_cluster());
  const HostOffset host = host_for_new_data(table, cluster);
  // A cluster that was zeroed has kept its place, and the old bytes are there.
  const bool fresh = host >= end && space_->is_fresh(host.bytes, host.bytes + cluster_bytes);
  if (fresh) partial.round_out(options_.sparse_unit_bytes);
  const uint64_t cost =
      partial.valid_bytes() + partial.valid.size() * options_.sparse_write_cost_bytes;
  if (!fresh || cost > cluster_bytes) partial.fill_with_zeroes();
  held->cluster = std::move(partial.bytes);
  changed(cluster_bytes);
  for (const ByteRange& range : partial.valid) {
    const auto bytes = held->cluster.bytes().subspan(range.from, range.to - range.from);
    write_behind_->submit({host.bytes + range.from}, bytes, held);
  }
  content_unknown_ = false;
}

/// Fills what is missing from below. The cluster is held, so nothing else changes it; and it stays
/// among the partial clusters, so that a failure loses nothing that was accepted.
io::Task<void> Image::fill_gaps(uint64_t cluster) {
  PartialCluster& partial = *partials_->find(cluster);
  for (const ByteRange& gap : partial.gaps()) {
    const auto into = partial.bytes.bytes().subspan(gap.from, gap.to - gap.from);
    co_await read_base(cluster, gap.from, into);
  }
  partial.mark_complete();
}

/// A failure is the image's from the step on in which it happens: its bytes may have left the
/// memory, and until all the others of a batch have ended a commit could write the mapping without
/// them.
io::Task<void> Image::complete_partial(uint64_t cluster) {
  try {
    RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::exclusive);
    if (failure_) std::rethrow_exception(failure_);
    if (partials_->find(cluster) == nullptr) co_return;  // completed or overwritten meanwhile
    const bool gaps_are_zero = co_await base_reads_as_zero(cluster);
    if (!gaps_are_zero) co_await fill_gaps(cluster);
    co_await finish_partial(cluster, std::move(hold), true);
  } catch (...) {
    fail(std::current_exception());
    throw;
  }
}

io::Task<void> Image::complete_partials(std::vector<uint64_t> clusters) {
  constexpr size_t kClustersAtOnce = 32;
  for (size_t first = 0; first < clusters.size(); first += kClustersAtOnce) {
    const size_t end = std::min(first + kClustersAtOnce, clusters.size());
    auto batch = [this, &clusters, first, end](io::TaskScope& tasks) -> io::Task<void> {
      for (size_t i = first; i < end; ++i) tasks.spawn(complete_partial(clusters[i]));
      co_return;
    };
    co_await io::run_scoped(std::move(batch));
  }
}

/// Brings the memory of partial clusters under its bound, the oldest first. One operation at a
/// time does it; others wait only when it falls behind.
io::Task<void> Image::relieve_partials() {
  while (relieving_ && !failure_ && partials_->memory_bytes() > 2 * options_.partial_bytes) {
    co_await relieved_.wait();
  }
  if (relieving_ || failure_) co_return;
  relieving_ = true;
  std::exception_ptr failure;
  try {
    while (partials_->memory_bytes() > options_.partial_bytes) {
      std::vector<uint64_t> batch = partials_->oldest(32);
      co_await complete_partials(std::move(batch));
    }
  } catch (...) {
    failure = std::current_exception();
  }
  relieving_ = false;
  if (failure) fail(failure);
  relieved_.set();
  relieved_.reset();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace qcow
