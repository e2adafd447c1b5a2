// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/cluster_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "io/planted_bug.h"
#include "io/stream.h"
#include "io/task_scope.h"
#include "qcow/format/format_error.h"

namespace qcow {

L2Table::L2Table(uint64_t l1_index, HostOffset host, size_t bytes, bool linked)
    : l1_index_(l1_index),
      host_(host),
      linked_(linked),
      entries_(bytes),
      part_dirty_((bytes + kPartBytes - 1) / kPartBytes) {}

ClusterMap::ClusterMap(io::Executor& executor, io::File& file, std::string image_name,
                       Geometry geometry, HostOffset l1_table, uint64_t l1_entry_count,
                       uint64_t cache_bytes, uint32_t version)
    : executor_(executor),
      file_(file),
      image_name_(std::move(image_name)),
      geometry_(geometry),
      version_(version),
      l1_table_(l1_table),
      part_bytes_(std::min<size_t>(L2Table::kPartBytes, geometry.cluster_bytes())),
      tables_max_(std::max<size_t>(
          1, cache_bytes / std::max<size_t>(geometry.cluster_bytes(), AlignedBytes::kAlignment))),
      l1_(l1_entry_count) {}

io::Task<void> ClusterMap::read_l1() {
  AlignedBytes raw(l1_.size() * 8);
  co_await file_.read(l1_table_.bytes, raw.bytes());
  for (size_t i = 0; i < l1_.size(); ++i) l1_[i] = io::load_be<uint64_t>(raw.data() + i * 8);
}

std::vector<HostOffset> ClusterMap::tables() const {
  assert(!dirty() && committing_ == 0);
  std::vector<HostOffset> found;
  for (const uint64_t raw : l1_) {
    const std::optional<L1Entry> entry = L1Entry::decode(raw, geometry_.cluster_bits);
    if (entry && entry->table) found.push_back(entry->table);
  }
  return found;
}

bool ClusterMap::must_move(uint64_t l1_index) const {
  return l1_[l1_index] != 0 && (l1_[l1_index] & kEntryCopied) == 0;
}

Mapping ClusterMap::mapping_of(const L2Table* table, GuestCluster cluster) const {
  if (table == nullptr) return Mapping::unallocated();
  assert(table->l1_index() == geometry_.l1_index(cluster));
  const uint64_t raw = table->raw(geometry_.l2_index(cluster));
  const auto mapping = decode_l2_entry(raw, geometry_.cluster_bits, version_);
  if (!mapping) {
    throw FormatError(image_name_, fmt::format("corrupt L2 entry {:#x} at guest offset {}", raw,
                                               geometry_.start_of(cluster).bytes));
  }
  return *mapping;
}

void ClusterMap::require_sound(const L2Table& table, GuestCluster first, uint64_t count) const {
  PLANTED_BUG(half_decoded_write, return )
  assert(count > 0 && count <= geometry_.clusters_to_table_end(first));
  for (GuestCluster cluster = first; cluster < first + count; ++cluster) {
    const uint64_t raw = table.raw(geometry_.l2_index(cluster));
    if (raw != 0 && raw != kEntryZero) mapping_of(&table, cluster);
  }
}

io::Task<void> ClusterMap::require_sound_range(GuestCluster first, uint64_t count) {
  while (count > 0) {
    const uint64_t part = std::min(count, geometry_.clusters_to_table_end(first));
    const L2Table* const table = co_await load(first);
    if (table != nullptr) require_sound(*table, first, part);
    first += part;
    count -= part;
  }
}

L2Table* ClusterMap::cached(uint64_t l1_index) {
  if (!tables_.empty() && tables_.front().l1_index() == l1_index) return &tables_.front();
  const auto found = by_index_.find(l1_index);
  if (found == by_index_.end()) return nullptr;
  tables_.splice(tables_.begin(), tables_, found->second);
  return &tables_.front();
}

io::Task<L2Table*> ClusterMap::load(uint64_t l1_index) {
  for (;;) {
    if (L2Table* const table = cached(l1_index)) co_return table;
    if (l1_[l1_index] == 0) co_return nullptr;
    const auto under_way = loading_.find(l1_index);
    if (under_way == loading_.end()) break;
    const std::shared_ptr<io::Event> loaded = under_way->second;
    co_await loaded->wait();
  }
  const std::optional<L1Entry> entry = L1Entry::decode(l1_[l1_index], geometry_.cluster_bits);
  if (!entry || !entry->table) {
    throw FormatError(image_name_,
                      fmt::format("corrupt L1 entry {:#x} at guest offset {}", l1_[l1_index],
                                  geometry_.start_of(geometry_.table_start(l1_index)).bytes));
  }
  const auto loaded = std::make_shared<io::Event>(executor_);
  loading_.emplace(l1_index, loaded);
  AlignedBytes entries(geometry_.cluster_bytes());
  std::exception_ptr failure;
  try {
    co_await file_.read(entry->table.bytes, entries.bytes());
  } catch (...) {
    failure = std::current_exception();
  }
  loading_.erase(l1_index);
  loaded->set();
  if (failure) std::rethrow_exception(failure);
  L2Table& table = insert(l1_index, entry->table, true);
  table.entries_ = std::move(entries);
  co_return &table;
}

L2Table& ClusterMap::create(uint64_t l1_index, HostOffset host) {
  assert(l1_[l1_index] == 0 && host);
  L2Table& table = insert(l1_index, host, false);
  table.made_here_ = true;
  l1_[l1_index] = L1Entry{host, true}.encode();  // last: a commit under way may write what is here
  table.mark_dirty(0);                           // so that the next commit takes it, whole
  return table;
}

void ClusterMap::move(L2Table& table, HostOffset host) {
  assert(must_move(table.l1_index()) && host != table.host());
  table.host_ = host;
  table.linked_ = false;
  table.l1_raw_on_disk_ = l1_[table.l1_index()];
  l1_[table.l1_index()] = L1Entry{host, true}.encode();
  table.mark_dirty(0);  // so that the next commit takes it, whole
}

L2Table& ClusterMap::insert(uint64_t l1_index, HostOffset host, bool linked) {
  assert(!by_index_.contains(l1_index) && "a table is in memory once");
  evict();
  Tables made;
  made.emplace_front(l1_index, host, geometry_.cluster_bytes(), linked);
  made.front().dirty_tables_ = &dirty_tables_;
  by_index_[l1_index] = made.begin();
  tables_.splice(tables_.begin(), made);
  return tables_.front();
}

void ClusterMap::evict() {
  for (auto table = tables_.end(); tables_.size() >= tables_max_ && table != tables_.begin();) {
    --table;
    if (table->dirty() || table->committing_ || !table->linked()) continue;
    by_index_.erase(table->l1_index());
    table = tables_.erase(table);
  }
}

ClusterMap::Snapshot ClusterMap::take_dirty() {
  assert(committing_ == 0 && "one commit at a time");
  Snapshot snapshot;
  if (dirty_tables_ == 0) return snapshot;
  for (L2Table& table : tables_) {
    if (table.dirty()) take_parts(table, snapshot);
  }
  assert(dirty_tables_ == 0 && "the snapshot has all that was changed");
  committing_ = snapshot.tables.size();
  return snapshot;
}

void ClusterMap::take_parts(L2Table& table, Snapshot& snapshot) {
  assert(!table.committing_ && l1_[table.l1_index()] != 0);
  snapshot.tables.push_back(table.l1_index());
  UNLESS_PLANTED(table_evicted_while_committed) table.committing_ = true;
  const size_t parts = table.part_dirty_.size();
  if (!table.linked()) snapshot.new_tables.push_back(table.l1_index());
  if (!table.linked() && !table.made_here_) {
    AlignedBytes copy(table.entries_.size());
    std::memcpy(copy.data(), table.entries_.data(), copy.size());
    snapshot.parts.push_back({table.host(), std::move(copy)});
  } else {
    for (size_t part = 0; part < parts;) {
      if (!table.part_dirty_[part]) {
        ++part;
        continue;
      }
      size_t end = part + 1;
      while (end < parts && table.part_dirty_[end]) ++end;
      AlignedBytes copy((end - part) * part_bytes_);
      std::memcpy(copy.data(), table.entries_.data() + part * part_bytes_, copy.size());
      snapshot.parts.push_back({{table.host().bytes + part * part_bytes_}, std::move(copy)});
      part = end;
      if (table.linked()) continue;
      while (part < parts && !table.part_dirty_[part]) ++part;
      snapshot.parts.back().zeroes_after = (part - end) * part_bytes_;
    }
  }
  if (table.dirty()) --dirty_tables_;
  table.dirty_parts_ = 0;
  std::fill(table.part_dirty_.begin(), table.part_dirty_.end(), false);
}

io::Task<void> ClusterMap::write_part(const Snapshot::Part& part) {
  if (part.zeroes_after == 0) {
    co_await file_.write(part.at.bytes, part.bytes.bytes());
    co_return;
  }
  alignas(AlignedBytes::kAlignment) static constinit std::array<std::byte, 64 << 10> zeroes{};
  std::vector<iovec> pieces{io::as_iovec(part.bytes.bytes())};
  for (uint64_t left = part.zeroes_after; left > 0; left -= pieces.back().iov_len) {
    pieces.push_back(io::as_iovec(std::span(zeroes).first(std::min<size_t>(left, zeroes.size()))));
  }
  co_await file_.write_gathered(part.at.bytes, pieces);
}

io::Task<void> ClusterMap::write_tables(const Snapshot& snapshot) {
  constexpr size_t kWritesAtOnce = 16;
  for (size_t first = 0; first < snapshot.parts.size(); first += kWritesAtOnce) {
    const size_t end = std::min(first + kWritesAtOnce, snapshot.parts.size());
    auto batch = [this, &snapshot, first, end](io::TaskScope& writes) -> io::Task<void> {
      for (size_t i = first; i < end; ++i) {
        writes.spawn(write_part(snapshot.parts[i]));
      }
      co_return;
    };
    co_await io::run_scoped(std::move(batch));
  }
}

io::Task<void> ClusterMap::write_l1(const Snapshot& snapshot) {
  std::vector<uint64_t> indices = snapshot.new_tables;
  std::sort(indices.begin(), indices.end());
  const uint64_t entries_per_part = part_bytes_ / 8;
  for (size_t i = 0; i < indices.size();) {
    const uint64_t part = indices[i] / entries_per_part;
    AlignedBytes bytes(part_bytes_);
    for (uint64_t k = 0; k < entries_per_part; ++k) {
      const uint64_t l1_index = part * entries_per_part + k;
      if (l1_index >= l1_.size()) break;
      uint64_t raw = l1_[l1_index];
      // A table that came after the snapshot is not on the disk yet.
      const auto found = by_index_.find(l1_index);
      if (found != by_index_.end() && !found->second->linked() &&
          !std::binary_search(indices.begin(), indices.end(), l1_index)) {
        raw = found->second->l1_raw_on_disk_;
      }
      io::store_be(bytes.data() + k * 8, raw);
    }
    co_await file_.write(l1_table_.bytes + part * part_bytes_, bytes.bytes());
    while (i < indices.size() && indices[i] / entries_per_part == part) ++i;
  }
}

void ClusterMap::committed(const Snapshot& snapshot) {
  assert(committing_ == snapshot.tables.size());
  committing_ = 0;
  UNLESS_PLANTED(table_evicted_while_committed)
  for (const uint64_t l1_index : snapshot.tables) by_index_.at(l1_index)->committing_ = false;
  for (const uint64_t l1_index : snapshot.new_tables) by_index_.at(l1_index)->linked_ = true;
}

}  // namespace qcow
