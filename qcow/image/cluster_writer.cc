// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/cluster_writer.h"

#include <algorithm>
#include <cassert>

#include "io/planted_bug.h"

namespace qcow {

ClusterWriter::ClusterWriter(ImageParts& parts, ImageReader& reader)
    : buffers_(parts.runtime.buffers),
      file_(*parts.file),
      tuning_(parts.options.tuning),
      header_(parts.header),
      geometry_(parts.geometry),
      has_parents_(parts.parents != nullptr),
      map_(*parts.map),
      allocator_(*parts.allocator),
      freed_(parts.freed),
      space_(*parts.space),
      partials_(*parts.partials),
      write_behind_(*parts.write_behind),
      demand_(parts.demand),
      failure_(parts.failure),
      counters_(parts.counters),
      sums_(parts.sums ? &*parts.sums : nullptr),
      reader_(reader),
      completed_(parts.runtime.executor,
                 std::max(parts.options.tuning.partial_bytes, uint64_t{1} << kClusterBitsMax)) {}

/// The table, with a place of its own, to be changed before the next suspension.
io::Task<L2Table*> ClusterWriter::table_for_update(uint64_t l1_index) {
  L2Table* table = co_await map_.load(l1_index);
  if (table == nullptr) co_return &map_.create(l1_index, allocator_.allocate(1));
  if (map_.must_move(l1_index)) {
    const HostOffset place = allocator_.allocate(1);
    freed_.drop(geometry_.cluster_of(table->host()));
    map_.move(*table, place);
  }
  co_return table;
}

io::Task<void> ClusterWriter::place(std::shared_ptr<HeldWrite> held, GuestCluster first,
                                    uint64_t count, const std::byte* bytes, const Sum* sums) {
  while (count > 0) {
    const uint64_t part = std::min(count, geometry_.clusters_to_table_end(first));
    const uint64_t l1_index = geometry_.l1_index(first);
    L2Table* table = map_.must_move(l1_index) ? nullptr : map_.cached(l1_index);
    if (table == nullptr) table = co_await table_for_update(l1_index);
    place_in_table(held, *table, first, part, bytes, sums);
    first += part;
    count -= part;
    bytes += part << geometry_.cluster_bits;
    if (sums != nullptr) sums += part;
  }
}

void ClusterWriter::leave_to_parents(GuestCluster first, uint64_t count) {
  partials_.erase(first, count);
  counters_.bytes_elided += count << geometry_.cluster_bits;
}

/// From look-up to submission without a suspension point (DU2): no snapshot sees a mapping whose
/// data write it would not wait for.
void ClusterWriter::place_in_table(const std::shared_ptr<HeldWrite>& held, L2Table& table,
                                   GuestCluster first, uint64_t count, const std::byte* bytes,
                                   const Sum* sums) {
  assert(!held->hold || held->hold.may_change(first, count));  // else the caller holds them
  assert(table.l1_index() == geometry_.l1_index(first) && !map_.must_move(table.l1_index()));
  map_.require_sound(table, first, count);
  failure_.begin_step();  // until every write is submitted
  partials_.erase(first, count);
  note_sums(first, count, bytes, sums);
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  HostOffset run_at;
  uint64_t run_bytes = 0;
  const std::byte* run_from = bytes;
  for (uint64_t i = 0; i < count; ++i) {
    const HostOffset host = host_for_new_data(table, first + i);
    if (run_bytes > 0 && host.bytes != run_at.bytes + run_bytes) {
      write_behind_.submit(run_at, {run_from, run_bytes}, held);
      run_from += run_bytes;
      run_bytes = 0;
    }
    if (run_bytes == 0) run_at = host;
    run_bytes += cluster_bytes;
  }
  demand_.note(count * cluster_bytes);
  write_behind_.submit(run_at, {run_from, run_bytes}, held);
  failure_.end_step();
}

/// Of what was sent, before it goes to the disk.
void ClusterWriter::note_sums(GuestCluster first, uint64_t count, const std::byte* bytes,
                              const Sum* sums) {
  if (sums_ == nullptr) return;
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  for (uint64_t i = 0; i < count; ++i) {
    sums_->note(first + i,
                sums != nullptr ? sums[i] : sum_of({bytes + i * cluster_bytes, cluster_bytes}));
  }
}

/// Where the whole cluster is to be written; its mapping says so from now on.
HostOffset ClusterWriter::host_for_new_data(L2Table& table, GuestCluster cluster) {
  const uint64_t index = geometry_.l2_index(cluster);
  const uint64_t raw = table.raw(index);
  if (raw != 0 && raw != kEntryZero) {
    const Mapping mapping = map_.mapping_of(&table, cluster);
    if (mapping.host && mapping.copied && mapping.kind != MappingKind::compressed) {
      if (mapping.kind == MappingKind::zero) {
        table.set_raw(index,
                      encode_l2_entry(Mapping::data_at(mapping.host), geometry_.cluster_bits));
      }
      return mapping.host;
    }
    freed_.drop(mapping, geometry_);
  }
  HostOffset host;
  if (!freed_.retained().empty()) {
    if (const auto own = freed_.retained().take(cluster)) host = geometry_.start_of(*own);
  }
  PLANTED_BUG(freed_cluster_reused,
              if (!host) host = geometry_.start_of(io::steal_retained(freed_.retained())))
  if (!host) {
    host = allocator_.allocate(1);
    counters_.bytes_stored += geometry_.cluster_bytes();
  }
  table.set_raw(index, encode_l2_entry(Mapping::data_at(host), geometry_.cluster_bits));
  return host;
}

io::Task<void> ClusterWriter::finish_partial(GuestCluster cluster, RangeQueue::Hold hold,
                                             bool detect_zeroes) {
  assert(hold.may_change(cluster, 1) && partials_.find(cluster) != nullptr);
  if (detect_zeroes && partials_.find(cluster)->valid_is_zero()) {
    co_await zero(cluster, 1);
    co_return;
  }
  const auto held = std::make_shared<HeldWrite>();
  held->hold = std::move(hold);
  held->completed = co_await io::Grant::acquire(completed_, geometry_.cluster_bytes());
  L2Table* const table = co_await table_for_update(geometry_.l1_index(cluster));
  store_partial(held, *table, cluster);
}

/// From look-up to submission without a suspension point, as place_in_table(). Zeroes are not
/// written where the file has never been written, if that saves more than the writes it takes.
void ClusterWriter::store_partial(const std::shared_ptr<HeldWrite>& held, L2Table& table,
                                  GuestCluster cluster) {
  assert(table.l1_index() == geometry_.l1_index(cluster) && !map_.must_move(table.l1_index()));
  map_.require_sound(table, cluster, 1);
  failure_.begin_step();  // until every write is submitted
  PartialCluster partial = partials_.take(cluster);
  assert(!partial.valid.empty() && "something was written to it");
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const HostOffset end = geometry_.start_of(allocator_.end_cluster());
  const HostOffset host = host_for_new_data(table, cluster);
  // A cluster that was zeroed has kept its place, and the old bytes are there.
  const bool fresh = host >= end && space_.is_fresh(host.bytes, host.bytes + cluster_bytes);
  if (fresh) partial.round_out(tuning_.sparse_unit_bytes);
  const uint64_t cost =
      partial.valid_bytes() + partial.valid.size() * tuning_.sparse_write_cost_bytes;
  if (!fresh || cost > cluster_bytes) partial.fill_with_zeroes();
  if (sums_ != nullptr) partial.clear_gaps();
  note_sums(cluster, 1, partial.bytes.data(), nullptr);
  held->cluster = std::move(partial.bytes);
  demand_.note(cluster_bytes);
  for (const ByteRange& range : partial.valid) {
    const auto bytes = held->cluster.bytes().subspan(range.from, range.to - range.from);
    write_behind_.submit({host.bytes + range.from}, bytes, held);
  }
  failure_.end_step();
}

}  // namespace qcow
