#include <algorithm>

#include "io/failure.h"
#include "io/planted_bug.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/image_parts.h"

namespace qcow {

namespace {

/// Writes far smaller than a cluster count as this much of the budget, so that their number is
/// bounded too.
constexpr uint64_t kBudgetBytesMin = 32 << 10;
constexpr uint64_t kPinnedTableBytesMax = 16 << 20;   // then operations wait for a commit
constexpr uint64_t kDirtyTableBytesUrgent = 8 << 20;  // then a commit starts early
constexpr size_t kDroppedClustersMax = 256 << 10;

}  // namespace

io::Task<void> Image::write(uint64_t offset, io::Buffer from) {
  require_open("write", offset, from.size());
  if (from.size() == 0) co_return;
  std::exception_ptr failure;
  try {
    co_await accept(offset, std::move(from));
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    refuse_or_fail(failure);
    std::rethrow_exception(failure);
  }
}

/// A cluster that waits in memory may need its place and an L2 table.
bool Image::must_wait_for_commit(uint64_t clusters) const {
  constexpr uint64_t kSpare = 32;
  const uint64_t needed = reserved_ + 2 * partials_->count() + clusters + kSpare;
  return (allocator_->room() < needed && allocator_->may_grow()) ||
         map_->pinned_bytes() > kPinnedTableBytesMax || dropped_.size() > kDroppedClustersMax;
}

/// Promises `clusters` host clusters, L2 tables included. Waits for a commit when only that can
/// make room. Nothing may be held while waiting here.
io::Task<Image::Room> Image::admit(uint64_t clusters) {
  const uint64_t promised = std::min(clusters, promises_max_);
  if (!promises_->try_acquire(promised)) co_await promises_->acquire(promised);
  io::Grant promise(*promises_, promised);
  // Those who come at once must not all bring a partial cluster.
  while (!failure_ && partials_->memory_bytes() > 2 * options_.partial_bytes) {
    co_await relieve_partials();
  }
  while (!failure_ && state_ == State::open && must_wait_for_commit(clusters)) {
    changed_.set();
    urgent_.set();
    co_await commit_ended_.wait();
  }
  if (map_->dirty_bytes() > kDirtyTableBytesUrgent) urgent_.set();
  Room room(reserved_, clusters, std::move(promise));
  if (!space_->covers(end_after_commit())) co_await space_->reserve(end_after_commit());
  co_return room;
}

/// Where the file ends when all that was promised is there, and what waits in memory, each cluster
/// of it with a table, with the next commit's refcount blocks.
uint64_t Image::end_after_commit() const {
  constexpr uint64_t kSpare = 8;
  const uint64_t clusters =
      reserved_ + 2 * partials_->count() + allocator_->blocks_at_once() + kSpare;
  const uint64_t ready = std::min(clusters, allocator_->ready_clusters());
  return geometry_.host_offset(allocator_->end_cluster() + clusters - ready).bytes;
}

io::Task<void> Image::accept(uint64_t offset, io::Buffer from) {
  const uint64_t end = offset + from.size();
  const uint64_t clusters = geometry_.cluster_of(end - 1) - geometry_.cluster_of(offset) + 1;
  const Room room = co_await admit(clusters + clusters / geometry_.l2_entries() + 2);
  const auto payload = std::make_shared<Payload>();
  const uint64_t cost =
      std::min(std::max<uint64_t>(from.size(), kBudgetBytesMin), options_.write_behind_bytes);
  payload->budget = co_await io::Grant::acquire(budget_, cost);
  payload->bytes = std::move(from);

  const std::span<const std::byte> bytes = payload->bytes.bytes();
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const uint64_t whole_from = std::min(round_up(offset, cluster_bytes), end);
  const uint64_t whole_to = std::max(round_down(end, cluster_bytes), whole_from);
  if (whole_from > offset) {
    const auto head = bytes.first(whole_from - offset);
    co_await write_partial(payload, offset, head);
  }
  if (whole_to > whole_from) {
    const auto whole = bytes.subspan(whole_from - offset, whole_to - whole_from);
    co_await write_whole(payload, whole_from, whole);
  }
  if (end > whole_to) {
    const auto tail = bytes.subspan(whole_to - offset);
    co_await write_partial(payload, whole_to, tail);
  }
  if (partials_->memory_bytes() > options_.partial_bytes) co_await relieve_partials();
}

io::Task<void> Image::write_whole(std::shared_ptr<Payload> payload, uint64_t offset,
                                  std::span<const std::byte> bytes) {
  const uint64_t first = geometry_.cluster_of(offset);
  const uint64_t count = bytes.size() >> geometry_.cluster_bits;
  const auto held = std::make_shared<HeldWrite>();
  held->payload = std::move(payload);
  held->hold = co_await ranges_.enter(first, count, RangeQueue::Access::exclusive);
  require_open("write", offset, bytes.size());
  const auto zero_at = [&](uint64_t i) {
    return is_zero(bytes.subspan(i << geometry_.cluster_bits, geometry_.cluster_bytes()));
  };
  for (uint64_t at = 0; at < count;) {
    const bool zero = zero_at(at);
    uint64_t run_end = at + 1;
    while (run_end < count && zero_at(run_end) == zero) ++run_end;
    const bool in_steps = run_end < count || count > geometry_.clusters_to_table_end(first);
    if (at == 0 && in_steps) co_await map_->require_sound_range(first, count);
    if (zero) {
      co_await zero_clusters(first + at, run_end - at);
    } else {
      co_await place(held, first + at, run_end - at, bytes.data() + (at << geometry_.cluster_bits));
    }
    at = run_end;
  }
}

/// Bytes of one cluster, not all of it.
io::Task<void> Image::write_partial(std::shared_ptr<Payload> payload, uint64_t offset,
                                    std::span<const std::byte> bytes) {
  const uint64_t cluster = geometry_.cluster_of(offset);
  RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::exclusive);
  require_open("write", offset, bytes.size());
  PartialCluster* partial = partials_->find(cluster);
  if (partial == nullptr) {
    const L2Table* const table = co_await map_->load(geometry_.l1_index_of(cluster));
    const Mapping mapping = map_->mapping_of(table, cluster);
    if (map_->owns(mapping, cluster)) {
      const auto held = std::make_shared<HeldWrite>();
      held->payload = std::move(payload);
      held->hold = std::move(hold);
      const HostOffset at{mapping.host.bytes + geometry_.offset_in_cluster(offset)};
      PLANTED_BUG(zero_before_rewrite, const std::vector<std::byte> zeroes(bytes.size());
                  co_await file_->write(at.bytes, zeroes))
      changed(bytes.size());
      write_behind_->submit(at, bytes, held);
      co_return;
    }
    partial = &partials_->get(cluster);
  }
  partial->put(static_cast<uint32_t>(geometry_.offset_in_cluster(offset)), bytes);
  changed(0);
  if (partial->complete()) co_await finish_partial(cluster, std::move(hold), true);
}

/// The table, with a place of its own, to be changed before the next suspension.
io::Task<L2Table*> Image::table_for_update(uint64_t l1_index) {
  L2Table* table = co_await map_->load(l1_index);
  if (table == nullptr) co_return &map_->create(l1_index, allocator_->allocate(1));
  if (map_->must_move(l1_index)) {
    dropped_.push_back(geometry_.host_cluster_index(table->host()));
    map_->move(*table, allocator_->allocate(1));
  }
  co_return table;
}

/// Data for whole clusters that `held` holds.
io::Task<void> Image::place(std::shared_ptr<HeldWrite> held, uint64_t first, uint64_t count,
                            const std::byte* bytes) {
  while (count > 0) {
    const uint64_t part = std::min(count, geometry_.clusters_to_table_end(first));
    const uint64_t l1_index = geometry_.l1_index_of(first);
    L2Table* table = map_->must_move(l1_index) ? nullptr : map_->cached(l1_index);
    if (table == nullptr) table = co_await table_for_update(l1_index);
    place_in_table(held, *table, first, part, bytes);
    first += part;
    count -= part;
    bytes += part << geometry_.cluster_bits;
  }
}

/// From look-up to submission without a suspension point (DU2): no snapshot sees a mapping whose
/// data write it would not wait for.
void Image::place_in_table(const std::shared_ptr<HeldWrite>& held, L2Table& table, uint64_t first,
                           uint64_t count, const std::byte* bytes) {
  if (failure_) std::rethrow_exception(failure_);
  map_->require_sound(table, first, count);
  content_unknown_ = true;  // until every write is submitted
  partials_->erase(first, count);
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  HostOffset run_at;
  uint64_t run_bytes = 0;
  const std::byte* run_from = bytes;
  for (uint64_t i = 0; i < count; ++i) {
    const HostOffset host = host_for_new_data(table, first + i);
    if (run_bytes > 0 && host.bytes != run_at.bytes + run_bytes) {
      write_behind_->submit(run_at, {run_from, run_bytes}, held);
      run_from += run_bytes;
      run_bytes = 0;
    }
    if (run_bytes == 0) run_at = host;
    run_bytes += cluster_bytes;
  }
  changed(count * cluster_bytes);
  write_behind_->submit(run_at, {run_from, run_bytes}, held);
  content_unknown_ = false;
}

/// Where the whole cluster is to be written; its mapping says so from now on.
HostOffset Image::host_for_new_data(L2Table& table, uint64_t cluster) {
  const uint64_t index = geometry_.l2_index_of(cluster);
  const uint64_t raw = table.raw(index);
  if (raw != 0 && raw != kEntryZero) {
    const Mapping mapping = map_->mapping_of(&table, cluster);
    if (mapping.host && mapping.copied && mapping.kind != MappingKind::compressed) {
      if (mapping.kind == MappingKind::zero) {
        table.set_raw(index,
                      encode_l2_entry(Mapping::data_at(mapping.host), geometry_.cluster_bits));
      }
      return mapping.host;
    }
    drop(mapping);
  }
  HostOffset host;
  if (!retained_.empty()) {
    if (const auto own = retained_.take(cluster)) host = geometry_.host_offset(*own);
  }
  PLANTED_BUG(freed_cluster_reused,
              if (!host) host = geometry_.host_offset(io::steal_retained(retained_)))
  if (!host) {
    host = allocator_->allocate(1);
    counters_.bytes_stored += geometry_.cluster_bytes();
  }
  table.set_raw(index, encode_l2_entry(Mapping::data_at(host), geometry_.cluster_bits));
  return host;
}

/// The mapping's host clusters lose an owner, once no durable mapping names them (CP6).
void Image::drop(const Mapping& mapping) {
  if (!mapping.host) return;
  const uint64_t bytes = mapping.kind == MappingKind::compressed ? mapping.compressed_bytes() : 1;
  const uint64_t last = geometry_.host_cluster_index({mapping.host.bytes + bytes - 1});
  for (uint64_t c = geometry_.host_cluster_index(mapping.host); c <= last; ++c) {
    dropped_.push_back(c);
  }
}

}  // namespace qcow
