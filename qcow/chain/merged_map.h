// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "io/runtime.h"
#include "io/sync.h"
#include "qcow/chain/layer.h"

namespace qcow {

/// A range of the virtual disk with one answer.
struct Run {
  MappingKind kind = MappingKind::unallocated;  ///< unallocated: no layer holds anything
  size_t layer = 0;                             ///< 0 = top; of no meaning when unallocated
  GuestOffset guest;
  uint64_t length = 0;  ///< bytes
  HostOffset host;      ///< data: of the run's first byte
  Mapping mapping;      ///< compressed: the cluster's own, the run is a part of that one cluster
};

/// A piece of the guest's address space, each of its slots answered by the topmost layer that says
/// anything about it. A slot is as large as the chain's smallest cluster.
class MergedRegion {
 public:
  MergedRegion(std::span<const std::unique_ptr<Layer>> layers, GuestOffset start,
               uint32_t slot_bits, uint64_t slot_count);

  /// The run at `from`, not beyond `end` (both inside the region). Throws FormatError (RF18) when
  /// the entry there is corrupt.
  Run run_at(GuestOffset from, GuestOffset end) const;

  uint64_t memory_bytes() const {
    return sizeof(*this) + entries_.size() * (sizeof entries_[0] + sizeof owners_[0]);
  }

 private:
  friend class MergedMap;
  // An owner is the index of a layer, perhaps with one of these.
  static constexpr uint16_t kNobody = 0xffff;
  static constexpr uint16_t kCorruptL2 = 0x4000;
  static constexpr uint16_t kCorruptL1 = 0x8000;
  static constexpr uint16_t kLayerMask = 0x3fff;

  uint64_t slot_of(GuestOffset at) const { return (at.bytes - start_.bytes) >> slot_bits_; }
  GuestOffset slot_start(uint64_t slot) const { return {start_.bytes + (slot << slot_bits_)}; }
  Run answer(uint64_t slot, GuestOffset from) const;
  bool continues(const Run& run, uint64_t slot) const;

  std::span<const std::unique_ptr<Layer>> layers_;
  GuestOffset start_;
  uint32_t slot_bits_;
  std::vector<uint64_t> entries_;  // raw L2 entry of the owner, or its raw L1 entry if corrupt
  std::vector<uint16_t> owners_;
};

/// Guest offset → layer and host offset over a whole chain, built region by region from the
/// layers' L2 tables and kept, least recently used thrown away, within a budget of bytes.
///
/// So a lookup does not walk the chain (BC4): only building a region does, and there a layer costs
/// a table read only where it stores something. Belongs to one executor thread.
class MergedMap {
 public:
  /// The layers (top first) outlive the map.
  MergedMap(io::Runtime runtime, std::span<const std::unique_ptr<Layer>> layers,
            uint64_t bytes_max);

  /// The region that holds `at`; null when no layer stores anything in it.
  io::Task<std::shared_ptr<const MergedRegion>> region_at(GuestOffset at);
  GuestOffset region_end(GuestOffset at) const;

  /// Where layer `index` stops to matter: the smallest size from the top down to it (BC3).
  uint64_t limit(size_t index) const { return limits_[index]; }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint64_t regions_built() const { return regions_built_; }

 private:
  using Region = std::shared_ptr<const MergedRegion>;
  struct Cached {
    uint64_t index;
    Region region;
  };

  Region find_cached(uint64_t index);
  bool is_nothing_stored(GuestOffset start, GuestOffset end) const;
  io::Task<Region> build(GuestOffset start, GuestOffset end);
  io::Task<void> merge_layer(MergedRegion& region, size_t layer_index, GuestOffset end);
  io::Task<void> merge_table(MergedRegion& region, size_t layer_index, uint64_t l1_index,
                             GuestOffset from, GuestOffset end);
  void keep(uint64_t index, Region region);

  io::Runtime runtime_;
  std::span<const std::unique_ptr<Layer>> layers_;
  std::vector<uint64_t> limits_;
  uint64_t bytes_max_;
  uint32_t slot_bits_;
  uint64_t region_bytes_;
  uint64_t memory_bytes_ = 0;
  uint64_t regions_built_ = 0;
  std::list<Cached> by_age_;  // newest first
  std::unordered_map<uint64_t, std::list<Cached>::iterator> by_index_;
  std::unordered_map<uint64_t, std::shared_ptr<io::Event>> being_built_;
};

}  // namespace qcow
