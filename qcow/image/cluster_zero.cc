// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>

#include "qcow/format/zero_check.h"
#include "qcow/image/cluster_writer.h"

namespace qcow {

io::Task<void> ClusterWriter::zero_in_place(RangeQueue::Hold hold, Mapping mapping, uint64_t offset,
                                            uint64_t length, io::ZeroMode mode) {
  const GuestCluster cluster = geometry_.cluster_of(GuestOffset{offset});
  assert(hold.may_change(cluster, 1));
  assert(mapping.kind == MappingKind::data && mapping.copied && "written in place: its own");
  const auto held = std::make_shared<HeldWrite>();
  held->hold = std::move(hold);
  held->completed = co_await io::Grant::acquire(completed_, geometry_.cluster_bytes());
  held->cluster = buffers_.acquire_over_budget(geometry_.cluster_bytes());
  const std::span<std::byte> bytes = held->cluster.bytes();
  co_await file_.read(mapping.host.bytes, bytes);
  const auto zeroed = bytes.subspan(geometry_.offset_in_cluster(offset), length);
  std::fill(zeroed.begin(), zeroed.end(), std::byte{0});
  if (mode != io::ZeroMode::no_hole && is_zero(bytes)) {
    co_await zero(cluster, 1);
    co_return;
  }
  failure_.require_none();
  demand_.note(length);
  const HostOffset at{mapping.host.bytes + geometry_.offset_in_cluster(offset)};
  if (sums_ != nullptr) sums_->forget(cluster);
  write_behind_.submit(at, zeroed, held);
}

io::Task<void> ClusterWriter::store_zeroes(std::shared_ptr<HeldWrite> held, GuestCluster first,
                                           uint64_t count) {
  const uint64_t at_once =
      std::min(count, std::max<uint64_t>(1, (uint64_t{1} << 20) >> geometry_.cluster_bits));
  held->cluster = buffers_.acquire_over_budget(at_once << geometry_.cluster_bits);
  const std::span<std::byte> zeroes = held->cluster.bytes();
  std::fill(zeroes.begin(), zeroes.end(), std::byte{0});
  co_await map_.require_sound_range(first, count);
  while (count > 0) {
    const uint64_t part = std::min(count, at_once);
    co_await place(held, first, part, zeroes.data());
    first += part;
    count -= part;
  }
}

io::Task<void> ClusterWriter::zero(GuestCluster first, uint64_t count) {
  if (must_store_zeroes()) {
    const auto held = std::make_shared<HeldWrite>();
    co_await store_zeroes(held, first, count);
    co_await write_behind_.drain_all();  // the caller's hold ends with the call
    co_return;
  }
  while (count > 0) {
    const uint64_t part = std::min(count, geometry_.clusters_to_table_end(first));
    const uint64_t l1_index = geometry_.l1_index(first);
    std::vector<ClusterRange> already_zero;
    if (has_parents_) already_zero = co_await reader_.zero_below(first, part);
    const bool below_is_zero =
        !has_parents_ || (already_zero.size() == 1 && already_zero.front().first == first &&
                          already_zero.front().end == first + part);
    L2Table* table = nullptr;
    if (map_.has_table(l1_index) || !below_is_zero) table = co_await table_for_update(l1_index);
    if (table != nullptr) map_.require_sound(*table, first, part);
    // What waits in memory was acknowledged: it goes in the same step in which the mapping says
    // zero, so that every snapshot has the one or the other (DU2).
    failure_.begin_step();  // until the mapping says it of all
    if (!partials_.empty()) {
      partials_.erase(first, part);
      demand_.note(0);
    }
    if (table != nullptr) zero_in_table(*table, first, part, already_zero);
    failure_.end_step();
    first += part;
    count -= part;
  }
}

void ClusterWriter::zero_in_table(L2Table& table, GuestCluster first, uint64_t count,
                                  const std::vector<ClusterRange>& already_zero) {
  assert(table.l1_index() == geometry_.l1_index(first) && !must_store_zeroes());
  const uint64_t zeroed = has_parents_ ? kEntryZero : 0;
  auto below = already_zero.begin();
  bool any = false;
  for (GuestCluster cluster = first; cluster < first + count; ++cluster) {
    const uint64_t index = geometry_.l2_index(cluster);
    const uint64_t raw = table.raw(index);
    if (raw == kEntryZero || (raw == 0 && !has_parents_)) continue;
    if (raw == 0) {
      while (below != already_zero.end() && below->end <= cluster) ++below;
      if (below != already_zero.end() && below->first <= cluster) continue;
    } else {
      const Mapping mapping = map_.mapping_of(&table, cluster);
      if (mapping.kind == MappingKind::zero) continue;
      if (mapping.kind == MappingKind::data && mapping.copied) {
        freed_.retained().add(cluster, geometry_.cluster_of(mapping.host));
      } else {
        freed_.drop(mapping, geometry_);
      }
    }
    table.set_raw(index, zeroed);
    any = true;
  }
  if (any) demand_.note(0);
}

}  // namespace qcow
