// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "io/failure.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/image.h"

namespace qcow {

io::Task<void> Image::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  require_open("zero", offset, length);
  if (length == 0) co_return;
  if (mode == io::ZeroMode::no_hole && parts_.options.no_hole == NoHole::zero_clusters) {
    mode = io::ZeroMode::may_unmap;
  }
  std::exception_ptr failure;
  try {
    if (mode == io::ZeroMode::fast_or_fail) co_await require_fast_zero(offset, length);
    co_await zero_range(offset, length, mode);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    refuse_or_fail(failure);
    std::rethrow_exception(failure);
  }
  parts_.counters.bytes_zeroed += length;
}

io::Task<void> Image::discard(uint64_t offset, uint64_t length) {
  co_await write_zeroes(offset, length, io::ZeroMode::may_unmap);
}

/// The clusters wholly inside the range go by their mapping, the two at its ends by their bytes. A
/// range that ends at the end of the disk counts as whole there.
io::Task<void> Image::zero_range(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  const uint64_t end = offset + length;
  const uint64_t cluster_bytes = parts_.geometry.cluster_bytes();
  const uint64_t whole_from = std::min(round_up(offset, cluster_bytes), end);
  const uint64_t whole_to = end == parts_.geometry.virtual_size
                                ? end
                                : std::max(round_down(end, cluster_bytes), whole_from);
  if (whole_from > offset) co_await zero_partial(offset, whole_from - offset, mode);
  if (whole_to > whole_from) {
    const GuestCluster whole_end{parts_.geometry.clusters_for(whole_to)};
    co_await zero_whole(cluster_of(whole_from), whole_end, mode);
  }
  if (end > whole_to) co_await zero_partial(whole_to, end - whole_to, mode);
  if (relief_->due()) co_await relief_->relieve();
}

/// Done when no partial cluster with data is touched, else ENOTSUP before anything changed.
io::Task<void> Image::require_fast_zero(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const bool head = parts_.geometry.offset_in_cluster(offset) != 0;
  const bool tail =
      parts_.geometry.offset_in_cluster(end) != 0 && end != parts_.geometry.virtual_size;
  bool fast = !writer_->must_store_zeroes();
  if (fast && head) fast = co_await reader_->reads_as_zero(cluster_of(offset));
  if (fast && tail) fast = co_await reader_->reads_as_zero(cluster_of(end));
  if (fast) co_return;
  throw io::failure("zero", parts_.name, offset, length, ENOTSUP);
}

io::Task<void> Image::zero_partial(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  const GuestCluster cluster = cluster_of(offset);
  const auto at = static_cast<uint32_t>(parts_.geometry.offset_in_cluster(offset));
  const Admission::Room room = co_await admission_->admit(3);
  RangeQueue::Hold hold = co_await parts_.ranges.enter(cluster, 1, RangeQueue::Access::exclusive);
  require_open("zero", offset, length);
  if (parts_.partials->find(cluster) == nullptr) {
    const L2Table* const table = co_await parts_.map->load(cluster);
    const Mapping mapping = parts_.map->mapping_of(table, cluster);
    if (parts_.map->owns(mapping, cluster)) {
      co_await writer_->zero_in_place(std::move(hold), mapping, offset, length, mode);
      co_return;
    }
    if (mode != io::ZeroMode::no_hole) {
      if (mapping.kind == MappingKind::zero) co_return;
      if (mapping.kind == MappingKind::unallocated) {
        const std::vector<ClusterRange> below = co_await reader_->zero_below(cluster, 1);
        if (!below.empty()) co_return;  // reads as zero already
      }
    }
  }
  PartialCluster& partial = parts_.partials->get(cluster);
  partial.put_zeroes(at, static_cast<uint32_t>(length));
  parts_.demand.note(0);
  if (mode == io::ZeroMode::no_hole) {
    co_await relief_->fill_gaps(cluster);
    co_await writer_->finish_partial(cluster, std::move(hold), false);
  } else if (partial.complete()) {
    co_await finish_complete(cluster, std::move(hold));
  }
}

/// Clusters [first, end), in steps of at most one L2 table each.
io::Task<void> Image::zero_whole(GuestCluster first, GuestCluster end, io::ZeroMode mode) {
  const bool store = mode == io::ZeroMode::no_hole || writer_->must_store_zeroes();
  constexpr uint64_t kStoredBytesAtOnce = 32 << 20;
  const uint64_t step_max =
      std::max<uint64_t>(1, kStoredBytesAtOnce / parts_.geometry.cluster_bytes());
  while (first < end) {
    uint64_t count = std::min(end - first, parts_.geometry.clusters_to_table_end(first));
    if (store) count = std::min(count, step_max);
    const Admission::Room room = co_await admission_->admit(store ? count + 2 : 2);
    RangeQueue::Hold hold =
        co_await parts_.ranges.enter(first, count, RangeQueue::Access::exclusive);
    require_open("zero", parts_.geometry.start_of(first).bytes,
                 count << parts_.geometry.cluster_bits);
    if (store) {
      const auto held = std::make_shared<HeldWrite>();
      held->hold = std::move(hold);
      co_await writer_->store_zeroes(held, first, count);
    } else {
      co_await writer_->zero(first, count);
    }
    first += count;
  }
}

}  // namespace qcow
