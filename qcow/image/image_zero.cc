#include <algorithm>

#include "io/failure.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/image_parts.h"

namespace qcow {

io::Task<void> Image::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  require_open("zero", offset, length);
  if (length == 0) co_return;
  if (mode == io::ZeroMode::no_hole && options_.no_hole == NoHole::zero_clusters) {
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
  counters_.bytes_zeroed += length;
}

io::Task<void> Image::discard(uint64_t offset, uint64_t length) {
  co_await write_zeroes(offset, length, io::ZeroMode::may_unmap);
}

/// The clusters wholly inside the range go by their mapping, the two at its ends by their bytes. A
/// range that ends at the end of the disk counts as whole there.
io::Task<void> Image::zero_range(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  const uint64_t end = offset + length;
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const uint64_t whole_from = std::min(round_up(offset, cluster_bytes), end);
  const uint64_t whole_to =
      end == geometry_.virtual_size ? end : std::max(round_down(end, cluster_bytes), whole_from);
  if (whole_from > offset) co_await zero_partial(offset, whole_from - offset, mode);
  if (whole_to > whole_from) {
    co_await zero_whole(geometry_.cluster_of(whole_from), geometry_.clusters_for(whole_to), mode);
  }
  if (end > whole_to) co_await zero_partial(whole_to, end - whole_to, mode);
  if (partials_->memory_bytes() > options_.partial_bytes) co_await relieve_partials();
}

/// Done when no partial cluster with data is touched, else ENOTSUP before anything changed.
io::Task<void> Image::require_fast_zero(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const bool head = geometry_.offset_in_cluster(offset) != 0;
  const bool tail = geometry_.offset_in_cluster(end) != 0 && end != geometry_.virtual_size;
  bool fast = header_.version >= 3 || !parents_;
  if (fast && head) fast = co_await reads_as_zero(geometry_.cluster_of(offset));
  if (fast && tail) fast = co_await reads_as_zero(geometry_.cluster_of(end));
  if (fast) co_return;
  throw io::failure("zero", name_, offset, length, ENOTSUP);
}

/// Known without reading data.
io::Task<bool> Image::reads_as_zero(uint64_t cluster) {
  const RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::shared);
  if (partials_->find(cluster) != nullptr) co_return false;
  co_return co_await base_reads_as_zero(cluster);
}

/// The same of what lies under the bytes that wait in memory; the cluster is held.
io::Task<bool> Image::base_reads_as_zero(uint64_t cluster) {
  const L2Table* const table = co_await map_->load(geometry_.l1_index_of(cluster));
  const Mapping mapping = map_->mapping_of(table, cluster);
  if (mapping.kind == MappingKind::zero) co_return true;
  if (mapping.kind != MappingKind::unallocated) co_return false;
  const std::vector<ClusterRange> below = co_await zero_below(cluster, 1);
  co_return !below.empty();
}

io::Task<void> Image::zero_partial(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  const uint64_t cluster = geometry_.cluster_of(offset);
  const auto at = static_cast<uint32_t>(geometry_.offset_in_cluster(offset));
  const Room room = co_await admit(3);
  RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::exclusive);
  require_open("zero", offset, length);
  if (partials_->find(cluster) == nullptr) {
    const L2Table* const table = co_await map_->load(geometry_.l1_index_of(cluster));
    const Mapping mapping = map_->mapping_of(table, cluster);
    if (map_->owns(mapping, cluster)) {
      co_await zero_in_place(std::move(hold), mapping, offset, length, mode);
      co_return;
    }
    if (mode != io::ZeroMode::no_hole) {
      if (mapping.kind == MappingKind::zero) co_return;
      if (mapping.kind == MappingKind::unallocated) {
        const std::vector<ClusterRange> below = co_await zero_below(cluster, 1);
        if (!below.empty()) co_return;  // reads as zero already
      }
    }
  }
  PartialCluster& partial = partials_->get(cluster);
  partial.put_zeroes(at, static_cast<uint32_t>(length));
  changed(0);
  if (mode == io::ZeroMode::no_hole) {
    co_await fill_gaps(cluster);
    co_await finish_partial(cluster, std::move(hold), false);
  } else if (partial.complete()) {
    co_await finish_partial(cluster, std::move(hold), true);
  }
}

/// Part of a cluster that is stored here: what becomes all zero goes as a whole cluster.
io::Task<void> Image::zero_in_place(RangeQueue::Hold hold, Mapping mapping, uint64_t offset,
                                    uint64_t length, io::ZeroMode mode) {
  const auto held = std::make_shared<HeldWrite>();
  held->hold = std::move(hold);
  held->completed = co_await io::Grant::acquire(completed_, geometry_.cluster_bytes());
  held->cluster = runtime_.buffers.acquire_over_budget(geometry_.cluster_bytes());
  const std::span<std::byte> bytes = held->cluster.bytes();
  co_await file_->read(mapping.host.bytes, bytes);
  const auto zeroed = bytes.subspan(geometry_.offset_in_cluster(offset), length);
  std::fill(zeroed.begin(), zeroed.end(), std::byte{0});
  if (mode != io::ZeroMode::no_hole && is_zero(bytes)) {
    co_await zero_clusters(geometry_.cluster_of(offset), 1);
    co_return;
  }
  if (failure_) std::rethrow_exception(failure_);
  changed(length);
  const HostOffset at{mapping.host.bytes + geometry_.offset_in_cluster(offset)};
  write_behind_->submit(at, zeroed, held);
}

/// Clusters [first, end), in steps of at most one L2 table each.
io::Task<void> Image::zero_whole(uint64_t first, uint64_t end, io::ZeroMode mode) {
  // Version 2 has no zero flag: over a parent only stored zeroes hide it.
  const bool store = mode == io::ZeroMode::no_hole || (header_.version < 3 && parents_);
  constexpr uint64_t kStoredBytesAtOnce = 32 << 20;
  const uint64_t step_max = std::max<uint64_t>(1, kStoredBytesAtOnce / geometry_.cluster_bytes());
  while (first < end) {
    uint64_t count = std::min(end - first, geometry_.clusters_to_table_end(first));
    if (store) count = std::min(count, step_max);
    const Room room = co_await admit(store ? count + 2 : 2);
    RangeQueue::Hold hold = co_await ranges_.enter(first, count, RangeQueue::Access::exclusive);
    require_open("zero", first << geometry_.cluster_bits, count << geometry_.cluster_bits);
    if (store) {
      const auto held = std::make_shared<HeldWrite>();
      held->hold = std::move(hold);
      co_await store_zeroes(held, first, count);
    } else {
      co_await zero_clusters(first, count);
    }
    first += count;
  }
}

/// Data clusters of zeroes. All writes take their bytes from one buffer.
io::Task<void> Image::store_zeroes(std::shared_ptr<HeldWrite> held, uint64_t first,
                                   uint64_t count) {
  const uint64_t at_once =
      std::min(count, std::max<uint64_t>(1, (uint64_t{1} << 20) >> geometry_.cluster_bits));
  held->cluster = runtime_.buffers.acquire_over_budget(at_once << geometry_.cluster_bits);
  const std::span<std::byte> zeroes = held->cluster.bytes();
  std::fill(zeroes.begin(), zeroes.end(), std::byte{0});
  co_await map_->require_sound_range(first, count);
  while (count > 0) {
    const uint64_t part = std::min(count, at_once);
    co_await place(held, first, part, zeroes.data());
    first += part;
    count -= part;
  }
}

/// Whole clusters, held by the caller, become zero by their mapping alone (WP8–WP10).
io::Task<void> Image::zero_clusters(uint64_t first, uint64_t count) {
  if (header_.version < 3 && parents_) {
    const auto held = std::make_shared<HeldWrite>();
    co_await store_zeroes(held, first, count);
    co_await write_behind_->drain_all();  // the caller's hold ends with the call
    co_return;
  }
  while (count > 0) {
    const uint64_t part = std::min(count, geometry_.clusters_to_table_end(first));
    const uint64_t l1_index = geometry_.l1_index_of(first);
    std::vector<ClusterRange> already_zero;
    if (parents_) already_zero = co_await zero_below(first, part);
    const bool below_is_zero =
        !parents_ || (already_zero.size() == 1 && already_zero.front().first == first &&
                      already_zero.front().end == first + part);
    L2Table* table = nullptr;
    if (map_->has_table(l1_index) || !below_is_zero) table = co_await table_for_update(l1_index);
    if (failure_) std::rethrow_exception(failure_);
    if (table != nullptr) map_->require_sound(*table, first, part);
    // What waits in memory was acknowledged: it goes in the same step in which the mapping says
    // zero, so that every snapshot has the one or the other (DU2).
    content_unknown_ = true;  // until the mapping says it of all
    if (!partials_->empty()) {
      partials_->erase(first, part);
      changed(0);
    }
    if (table != nullptr) zero_in_table(*table, first, part, already_zero);
    content_unknown_ = false;
    first += part;
    count -= part;
  }
}

void Image::zero_in_table(L2Table& table, uint64_t first, uint64_t count,
                          const std::vector<ClusterRange>& already_zero) {
  const uint64_t zeroed = parents_ ? kEntryZero : 0;
  auto below = already_zero.begin();
  bool any = false;
  for (uint64_t cluster = first; cluster < first + count; ++cluster) {
    const uint64_t index = geometry_.l2_index_of(cluster);
    const uint64_t raw = table.raw(index);
    if (raw == kEntryZero || (raw == 0 && !parents_)) continue;
    if (raw == 0) {
      while (below != already_zero.end() && below->end <= cluster) ++below;
      if (below != already_zero.end() && below->first <= cluster) continue;
    } else {
      const Mapping mapping = map_->mapping_of(&table, cluster);
      if (mapping.kind == MappingKind::zero) continue;
      if (mapping.kind == MappingKind::data && mapping.copied) {
        retained_.add(cluster, geometry_.host_cluster_index(mapping.host));
      } else {
        drop(mapping);
      }
    }
    table.set_raw(index, zeroed);
    any = true;
  }
  if (any) changed(0);
}

/// The clusters of a range that read as zero when nothing is stored here, as far as the parents'
/// tables tell; ascending, merged.
io::Task<std::vector<Image::ClusterRange>> Image::zero_below(uint64_t first, uint64_t count) {
  std::vector<ClusterRange> ranges;
  const uint64_t end = std::min((first + count) << geometry_.cluster_bits, geometry_.virtual_size);
  uint64_t zero_from = first << geometry_.cluster_bits;
  const auto zero_until = [&](uint64_t to) {
    const ClusterRange range{geometry_.clusters_for(zero_from), to == geometry_.virtual_size
                                                                    ? geometry_.clusters_for(to)
                                                                    : geometry_.cluster_of(to)};
    if (range.end > range.first) ranges.push_back(range);
  };
  for (uint64_t at = zero_from; at < end;) {
    if (!parents_ || at >= parents_->size()) break;
    constexpr size_t kExtentsMax = 1024;
    const uint64_t length = std::min(end, parents_->size()) - at;
    const std::vector<io::Extent> extents = co_await parents_->extents(at, length, kExtentsMax);
    for (const io::Extent& extent : extents) {
      if (!extent.zero) {
        zero_until(at);
        zero_from = at + extent.length;
      }
      at += extent.length;
    }
  }
  zero_until(end);
  co_return ranges;
}

}  // namespace qcow
