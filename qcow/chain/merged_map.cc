// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/merged_map.h"

#include <fmt/format.h>
#include <cassert>

#include <algorithm>

namespace qcow {

namespace {

constexpr uint64_t kSlotsPerRegion = 8192;  // with 64 KiB clusters, one L2 table's worth
// Tables of small clusters hold few entries; a large region would need too many of them.
constexpr uint64_t kSlotsPerRegionOfSmallClusters = 1024;

bool is_corrupt(const Layer& layer, const std::optional<Mapping>& mapping) {
  if (!mapping) return true;
  const bool stores =
      mapping->kind == MappingKind::data || mapping->kind == MappingKind::compressed;
  return stores && !layer.is_inside_file(mapping->host);
}

uint32_t smallest_cluster_bits(std::span<const std::unique_ptr<Layer>> layers) {
  uint32_t bits = kClusterBitsMax;
  for (const auto& layer : layers) bits = std::min(bits, layer->geometry().cluster_bits);
  return bits;
}

}  // namespace

MergedRegion::MergedRegion(std::span<const std::unique_ptr<Layer>> layers, GuestOffset start,
                           uint32_t slot_bits, uint64_t slot_count)
    : layers_(layers),
      start_(start),
      slot_bits_(slot_bits),
      entries_(slot_count),
      owners_(slot_count, kNobody) {}

Run MergedRegion::run_at(GuestOffset from, GuestOffset end) const {
  assert(from >= start_ && from < end && slot_of({end.bytes - 1}) < owners_.size());
  uint64_t slot = slot_of(from);
  Run run = answer(slot, from);
  GuestOffset run_end = slot_start(slot + 1);
  while (run_end < end) {
    run.length = run_end.bytes - from.bytes;
    if (!continues(run, ++slot)) break;
    run_end = slot_start(slot + 1);
  }
  run.length = std::min(run_end, end).bytes - from.bytes;
  return run;
}

Run MergedRegion::answer(uint64_t slot, GuestOffset from) const {
  const uint16_t owner = owners_[slot];
  if (owner == kNobody) return {.kind = MappingKind::unallocated, .guest = from};
  const size_t index = owner & kLayerMask;
  assert(index < layers_.size());
  const Layer& layer = *layers_[index];
  if ((owner & (kCorruptL1 | kCorruptL2)) != 0) {
    throw FormatError(layer.name(), fmt::format("corrupt {} entry {:#x} at guest offset {}",
                                                (owner & kCorruptL1) != 0 ? "L1" : "L2",
                                                entries_[slot], from.bytes));
  }
  const Geometry& geometry = layer.geometry();
  const Mapping mapping =
      decode_l2_entry(entries_[slot], geometry.cluster_bits, layer.header().version).value();
  Run run{.kind = mapping.kind, .layer = index, .guest = from};
  if (mapping.kind == MappingKind::data) {
    run.host = {mapping.host.bytes + geometry.offset_in_cluster(from.bytes)};
  }
  if (mapping.kind == MappingKind::compressed) run.mapping = mapping;
  return run;
}

/// Whether `slot`, the one behind the run, prolongs it.
bool MergedRegion::continues(const Run& run, uint64_t slot) const {
  const uint16_t owner = owners_[slot];
  if (owner == kNobody) return run.kind == MappingKind::unallocated;
  if (run.kind == MappingKind::unallocated || owner != run.layer) return false;
  const Geometry& geometry = layers_[run.layer]->geometry();
  const GuestOffset at = slot_start(slot);
  if (run.kind == MappingKind::compressed) {
    return geometry.cluster_of(at) == geometry.cluster_of(run.guest);
  }
  const Run next = answer(slot, at);
  if (next.kind != run.kind) return false;
  return run.kind == MappingKind::zero || next.host.bytes == run.host.bytes + run.length;
}

MergedMap::MergedMap(io::Runtime runtime, std::span<const std::unique_ptr<Layer>> layers,
                     uint64_t bytes_max)
    : runtime_(runtime),
      layers_(layers),
      bytes_max_(bytes_max),
      slot_bits_(smallest_cluster_bits(layers)),
      region_bytes_(
          (slot_bits_ < kClusterBitsDefault ? kSlotsPerRegionOfSmallClusters : kSlotsPerRegion)
          << slot_bits_) {
  assert(!layers.empty() && layers.size() < MergedRegion::kLayerMask);
  uint64_t limit = ~uint64_t{0};
  for (const auto& layer : layers) {
    limit = std::min(limit, layer->header().virtual_size);
    limits_.push_back(limit);
  }
}

GuestOffset MergedMap::region_end(GuestOffset at) const {
  return {std::min(round_down(at.bytes, region_bytes_) + region_bytes_, limits_.front())};
}

io::Task<MergedMap::Region> MergedMap::region_at(GuestOffset at) {
  const uint64_t index = at.bytes / region_bytes_;
  const GuestOffset start{index * region_bytes_};
  const GuestOffset end = region_end(at);
  if (is_nothing_stored(start, end)) co_return nullptr;
  for (;;) {
    if (Region found = find_cached(index)) co_return found;
    const auto other = being_built_.find(index);
    if (other == being_built_.end()) break;
    const std::shared_ptr<io::Event> built = other->second;
    co_await built->wait();
  }
  const auto built = std::make_shared<io::Event>(runtime_.executor);
  being_built_.emplace(index, built);
  Region region;
  std::exception_ptr failure;
  try {
    region = co_await build(start, end);
    keep(index, region);
  } catch (...) {
    failure = std::current_exception();
  }
  being_built_.erase(index);
  built->set();
  if (failure) std::rethrow_exception(failure);
  co_return region;
}

MergedMap::Region MergedMap::find_cached(uint64_t index) {
  const auto found = by_index_.find(index);
  if (found == by_index_.end()) return nullptr;
  by_age_.splice(by_age_.begin(), by_age_, found->second);
  return found->second->region;
}

bool MergedMap::is_nothing_stored(GuestOffset start, GuestOffset end) const {
  for (size_t index = 0; index < layers_.size(); ++index) {
    const Layer& layer = *layers_[index];
    const uint64_t layer_end = std::min(end.bytes, limits_[index]);
    if (start.bytes >= layer_end) return true;  // and so for all layers below
    const Geometry& geometry = layer.geometry();
    const uint64_t last = geometry.l1_index(geometry.cluster_of(GuestOffset{layer_end - 1}));
    for (uint64_t i = geometry.l1_index(geometry.cluster_of(start)); i <= last; ++i) {
      if (layer.raw_l1_entry(i) != 0) return false;
    }
  }
  return true;
}

io::Task<MergedMap::Region> MergedMap::build(GuestOffset start, GuestOffset end) {
  ++regions_built_;
  const uint64_t slots = divide_up(end.bytes - start.bytes, uint64_t{1} << slot_bits_);
  auto region = std::make_shared<MergedRegion>(layers_, start, slot_bits_, slots);
  for (size_t index = 0; index < layers_.size(); ++index) {
    const GuestOffset layer_end{std::min(end.bytes, limits_[index])};
    if (start >= layer_end) break;
    if (std::ranges::find(region->owners_, MergedRegion::kNobody) == region->owners_.end()) break;
    co_await merge_layer(*region, index, layer_end);
  }
  co_return region;
}

io::Task<void> MergedMap::merge_layer(MergedRegion& region, size_t layer_index, GuestOffset end) {
  const Layer& layer = *layers_[layer_index];
  const Geometry& geometry = layer.geometry();
  for (GuestOffset at = region.start_; at < end;) {
    const uint64_t l1_index = geometry.l1_index(geometry.cluster_of(at));
    const GuestOffset table_end =
        std::min(geometry.start_of(geometry.table_start(l1_index + 1)), end);
    if (layer.raw_l1_entry(l1_index) != 0) {
      co_await merge_table(region, layer_index, l1_index, at, table_end);
    }
    at = table_end;
  }
}

io::Task<void> MergedMap::merge_table(MergedRegion& region, size_t layer_index, uint64_t l1_index,
                                      GuestOffset from, GuestOffset end) {
  Layer& layer = *layers_[layer_index];
  const Geometry& geometry = layer.geometry();
  const uint64_t raw_l1 = layer.raw_l1_entry(l1_index);
  const auto l1_entry = L1Entry::decode(raw_l1, geometry.cluster_bits);
  const bool l1_is_corrupt = !l1_entry || !layer.is_inside_file(l1_entry->table);

  const GuestCluster first = geometry.cluster_of(from);
  const GuestCluster last = geometry.cluster_of(GuestOffset{end.bytes - 1});
  std::vector<uint64_t> entries(last - first + 1, raw_l1);
  if (!l1_is_corrupt) {
    co_await layer.read_l2_entries(l1_entry->table, geometry.l2_index(first), entries);
  }

  assert(from < end && from >= region.start_);
  const uint64_t last_slot = region.slot_of({end.bytes - 1});
  for (uint64_t slot = region.slot_of(from); slot <= last_slot; ++slot) {
    if (region.owners_[slot] != MergedRegion::kNobody) continue;
    const uint64_t raw = entries[geometry.cluster_of(region.slot_start(slot)) - first];
    if (raw == 0) continue;
    uint16_t owner = static_cast<uint16_t>(layer_index);
    if (l1_is_corrupt) {
      owner |= MergedRegion::kCorruptL1;
    } else {
      const auto mapping = decode_l2_entry(raw, geometry.cluster_bits, layer.header().version);
      if (mapping && mapping->kind == MappingKind::unallocated) continue;
      if (is_corrupt(layer, mapping)) owner |= MergedRegion::kCorruptL2;
    }
    assert((owner & MergedRegion::kLayerMask) == layer_index);  // the topmost that says anything
    region.owners_[slot] = owner;
    region.entries_[slot] = raw;
  }
}

void MergedMap::keep(uint64_t index, Region region) {
  std::list<Cached> made;
  assert(!by_index_.contains(index) && "built once, however many wait for it");
  made.push_front({index, std::move(region)});
  by_index_[index] = made.begin();  // the last step that needs memory
  memory_bytes_ += made.front().region->memory_bytes();
  by_age_.splice(by_age_.begin(), made);
  while (memory_bytes_ > bytes_max_ && by_age_.size() > 1) {
    assert(memory_bytes_ >= by_age_.back().region->memory_bytes());
    memory_bytes_ -= by_age_.back().region->memory_bytes();
    by_index_.erase(by_age_.back().index);
    by_age_.pop_back();
  }
}

}  // namespace qcow
