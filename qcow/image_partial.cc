#include <algorithm>
#include <cassert>

#include "io/task_scope.h"
#include "qcow/image_parts.h"
#include "qcow/zero_check.h"

namespace qcow {

/// A partial cluster that has become whole is stored like any whole cluster. Until its mapping says
/// so it stays where a commit looks for it, because its bytes were acknowledged.
io::Task<void> Image::finish_partial(uint64_t cluster, RangeQueue::Hold hold, bool detect_zeroes) {
  const PartialCluster& partial = *partials_->find(cluster);
  assert(partial.complete());
  if (detect_zeroes && is_zero(partial.bytes.bytes())) {
    co_await zero_clusters(cluster, 1);
    co_return;
  }
  const auto held = std::make_shared<HeldWrite>();
  held->hold = std::move(hold);
  held->completed = co_await io::Grant::acquire(completed_, geometry_.cluster_bytes());
  L2Table* const table = co_await table_for_update(l1_index_of(cluster));
  held->cluster = partials_->take(cluster).bytes;
  place_in_table(held, *table, cluster, 1, held->cluster.data());
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

io::Task<void> Image::complete_partial(uint64_t cluster) {
  RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::exclusive);
  if (failure_) std::rethrow_exception(failure_);
  if (partials_->find(cluster) == nullptr) co_return;  // completed or overwritten meanwhile
  co_await fill_gaps(cluster);
  co_await finish_partial(cluster, std::move(hold), true);
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
