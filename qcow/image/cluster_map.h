// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/file.h"
#include "io/sync.h"
#include "qcow/format/aligned_bytes.h"
#include "qcow/format/entries.h"
#include "qcow/format/geometry.h"

namespace qcow {

/// One L2 table in memory, in the disk's byte order, with the parts that differ from the disk.
class L2Table {
 public:
  static constexpr size_t kPartBytes = 4096;

  L2Table(uint64_t l1_index, HostOffset host, size_t bytes, bool linked);

  uint64_t l1_index() const { return l1_index_; }
  HostOffset host() const { return host_; }
  /// The L1 table on disk names it. Before that it is written whole, after that by part (LT4).
  bool linked() const { return linked_; }
  bool dirty() const { return dirty_parts_ > 0; }

  uint64_t raw(uint64_t index) const { return io::load_be<uint64_t>(entries_.data() + index * 8); }
  void set_raw(uint64_t index, uint64_t raw) {
    io::store_be(entries_.data() + index * 8, raw);
    mark_dirty(index * 8 / kPartBytes);
  }

 private:
  friend class ClusterMap;
  void mark_dirty(size_t part) {
    assert(part < part_dirty_.size());
    if (part_dirty_[part]) return;
    part_dirty_[part] = true;
    if (dirty_parts_++ == 0) ++*dirty_tables_;
  }

  uint64_t l1_index_;
  HostOffset host_;
  bool linked_;
  bool made_here_ = false;       // parts that are not dirty hold zeroes, until it is linked
  bool committing_ = false;      // a snapshot holds what the disk does not have yet
  uint64_t l1_raw_on_disk_ = 0;  // while not linked
  AlignedBytes entries_;
  std::vector<bool> part_dirty_;
  size_t dirty_parts_ = 0;
  uint64_t* dirty_tables_ = nullptr;  // the map's count
};

/// Which host cluster each guest cluster has: the L1 table in memory, L2 tables cached.
///
/// Invariant: memory is bounded whatever the disk's size. Tables that equal the disk's are dropped,
/// the least recently used first; others stay until a commit has ended, which the image calls for
/// in time (dirty_bytes()). What goes to the disk is a snapshot, taken without a suspension point,
/// so it names exactly what was mapped before it (DU4). A table pointer is good until the holder's
/// next suspension. Spec: LT4–LT7, DU4, DU5.
class ClusterMap {
 public:
  static constexpr uint64_t kCacheBytes = 12 << 20;  ///< unless told otherwise

  /// What one commit writes.
  struct Snapshot {
    struct Part {
      HostOffset at;
      AlignedBytes bytes;
      uint64_t zeroes_after = 0;  ///< bytes; of a new table, what was never set is not copied
    };
    std::vector<Part> parts;
    std::vector<uint64_t> tables;      ///< L1 indices of all that have parts here
    std::vector<uint64_t> new_tables;  ///< L1 indices that L1 does not name yet
    bool empty() const { return parts.empty() && new_tables.empty(); }
  };

  ClusterMap(io::Executor& executor, io::File& file, std::string image_name, Geometry geometry,
             HostOffset l1_table, uint64_t l1_entry_count, uint64_t cache_bytes = kCacheBytes,
             uint32_t version = 3);

  io::Task<void> read_l1();

  bool has_table(uint64_t l1_index) const { return l1_[l1_index] != 0; }
  uint64_t l1_raw(uint64_t l1_index) const { return l1_[l1_index]; }
  /// Where all of them are, none of which is new.
  std::vector<HostOffset> tables() const;
  /// Another owner may share the table (its COPIED flag is clear): move() it before any change.
  bool must_move(uint64_t l1_index) const;

  /// What a table, which may be null, says of a guest cluster in its range. Throws FormatError for
  /// a corrupt entry (RF18).
  Mapping mapping_of(const L2Table* table, GuestCluster cluster) const;
  /// Throws for a corrupt entry among `count` of one table, so that those who are about to change
  /// them meet it before they have changed anything.
  void require_sound(const L2Table& table, GuestCluster first, uint64_t count) const;
  /// The same of clusters that the caller holds and changes in steps.
  io::Task<void> require_sound_range(GuestCluster first, uint64_t count);
  /// Whether the cluster's host cluster is its own, so that it may be written in place.
  bool owns(const Mapping& mapping, GuestCluster cluster) const {
    return mapping.kind == MappingKind::data && mapping.copied &&
           !must_move(geometry_.l1_index(cluster));
  }

  /// The table, if it is in memory.
  L2Table* cached(uint64_t l1_index);
  /// The table, or null when there is none. Throws FormatError for a bad L1 entry (RF18).
  io::Task<L2Table*> load(uint64_t l1_index);
  io::Task<L2Table*> load(GuestCluster cluster) { return load(geometry_.l1_index(cluster)); }
  /// An empty table at `host`, where none was.
  L2Table& create(uint64_t l1_index, HostOffset host);
  /// Gives the loaded table a place of its own.
  void move(L2Table& table, HostOffset host);

  /// Memory of tables that have changed since the last snapshot.
  uint64_t dirty_bytes() const { return dirty_tables_ * table_memory_bytes(); }
  /// The same with those that a commit is writing: memory that only a commit can give back.
  uint64_t pinned_bytes() const { return (dirty_tables_ + committing_) * table_memory_bytes(); }
  bool dirty() const { return dirty_tables_ > 0; }

  Snapshot take_dirty();
  io::Task<void> write_tables(const Snapshot& snapshot);
  io::Task<void> write_l1(const Snapshot& snapshot);
  /// The snapshot is durable.
  void committed(const Snapshot& snapshot);

 private:
  using Tables = std::list<L2Table>;

  L2Table& insert(uint64_t l1_index, HostOffset host, bool linked);
  void evict();
  void take_parts(L2Table& table, Snapshot& snapshot);
  io::Task<void> write_part(const Snapshot::Part& part);
  uint64_t table_memory_bytes() const {
    return std::max<uint64_t>(geometry_.cluster_bytes(), AlignedBytes::kAlignment);
  }

  io::Executor& executor_;
  io::File& file_;
  std::string image_name_;
  Geometry geometry_;
  uint32_t version_;  // of the image's header
  HostOffset l1_table_;
  size_t part_bytes_;
  size_t tables_max_;
  std::vector<uint64_t> l1_;
  Tables tables_;  // most recently used first
  std::unordered_map<uint64_t, Tables::iterator> by_index_;
  std::unordered_map<uint64_t, std::shared_ptr<io::Event>> loading_;
  uint64_t dirty_tables_ = 0;
  uint64_t committing_ = 0;  // tables in a snapshot
};

}  // namespace qcow
