// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/partial_relief.h"

#include <algorithm>
#include <cassert>

namespace qcow {

PartialRelief::PartialRelief(ImageParts& parts, ImageReader& reader, ClusterWriter& writer,
                             Elision* elision)
    : bytes_max_(parts.options.tuning.partial_bytes),
      partials_(*parts.partials),
      ranges_(parts.ranges),
      failure_(parts.failure),
      reader_(reader),
      writer_(writer),
      elision_(elision),
      relieved_(parts.runtime.executor) {}

io::Task<void> PartialRelief::fill_gaps(GuestCluster cluster) {
  assert(partials_.find(cluster) != nullptr);
  PartialCluster& partial = *partials_.find(cluster);
  for (const ByteRange& gap : partial.gaps()) {
    const auto into = partial.bytes.bytes().subspan(gap.from, gap.to - gap.from);
    co_await reader_.read_base(cluster, gap.from, into);
  }
  assert(&partial == partials_.find(cluster) && "held, so nobody took it meanwhile");
  partial.mark_complete();
}

/// A failure is the image's from the step on in which it happens: its bytes may have left the
/// memory, and until all the others of a batch have ended a commit could write the mapping without
/// them.
io::Task<void> PartialRelief::complete_one(GuestCluster cluster) {
  try {
    RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::exclusive);
    failure_.require_none();
    if (partials_.find(cluster) == nullptr) co_return;  // completed or overwritten meanwhile
    const bool gaps_are_zero = co_await reader_.base_reads_as_zero(cluster);
    if (!gaps_are_zero && elision_ != nullptr) {
      if (co_await elision_->fill_or_find_equal(cluster, *partials_.find(cluster))) {
        writer_.leave_to_parents(cluster, 1);
        co_return;
      }
    } else if (!gaps_are_zero) {
      co_await fill_gaps(cluster);
    }
    co_await writer_.finish_partial(cluster, std::move(hold), true);
  } catch (...) {
    failure_.fail(std::current_exception());
    throw;
  }
}

io::Task<void> PartialRelief::complete(std::vector<GuestCluster> clusters) {
  constexpr size_t kClustersAtOnce = 32;
  for (size_t first = 0; first < clusters.size(); first += kClustersAtOnce) {
    const size_t end = std::min(first + kClustersAtOnce, clusters.size());
    auto batch = [this, &clusters, first, end](io::TaskScope& tasks) -> io::Task<void> {
      for (size_t i = first; i < end; ++i) tasks.spawn(complete_one(clusters[i]));
      co_return;
    };
    co_await io::run_scoped(std::move(batch));
  }
}

io::Task<void> PartialRelief::relieve() {
  while (relieving_ && !failure_ && overdue()) {
    co_await relieved_.wait();
  }
  if (relieving_ || failure_) co_return;
  relieving_ = true;
  std::exception_ptr failure;
  try {
    while (due()) {
      std::vector<GuestCluster> batch = partials_.oldest(32);
      co_await complete(std::move(batch));
    }
  } catch (...) {
    failure = std::current_exception();
  }
  relieving_ = false;
  if (failure) failure_.fail(failure);
  relieved_.wake();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace qcow
