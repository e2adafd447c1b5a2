// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/file.h"
#include "qcow/format/aligned_bytes.h"
#include "qcow/format/entries.h"
#include "qcow/format/geometry.h"

namespace qcow {

/// The refcount table and the refcount blocks of a writable image: which are on the disk, which
/// are in memory, which parts differ.
///
/// Only the blocks being changed stay in memory. Blocks are numbers, not offsets. The order of
/// writes is the caller's (Allocator, commit): nothing here is a barrier. Spec: qemu
/// docs/interop/qcow2, "Host cluster management"; LT3, DU4, HD11.
class Refcounts {
 public:
  Refcounts(io::File& file, std::string image_name, Geometry geometry, HostOffset table,
            uint64_t table_clusters);

  io::Task<void> read_table();

  uint64_t blocks_max() const {
    return table_clusters_ * geometry_.refcount_table_entries_per_cluster();
  }
  bool has_block(uint64_t index) const { return block_offset(index).bytes != 0; }
  HostOffset block_offset(uint64_t index) const {
    return {index < table_.size() ? table_[index] : 0};
  }
  HostOffset table_offset() const { return table_offset_; }
  uint64_t table_clusters() const { return table_clusters_; }

  /// Brings the block into memory. It exists, or was made fresh.
  io::Task<void> load(uint64_t index);
  bool loaded(uint64_t index) const { return blocks_.contains(index); }
  /// A block in memory that is known to hold zeroes only.
  void make_fresh(uint64_t index);

  /// Of a cluster whose block is in memory.
  uint64_t get(HostCluster cluster) const;
  void set(HostCluster cluster, uint64_t refcount);
  /// The last cluster of a loaded block with a refcount, counted from the block's start, plus one;
  /// 0 when all are zero.
  uint64_t used_in_block(uint64_t index) const;

  bool dirty() const { return dirty_blocks_ > 0; }
  /// Writes the parts that differ, as they are at the call; blocks without a place are left out.
  io::Task<void> write_dirty();
  /// Writes all of a new block at its future place.
  io::Task<void> write_new_block(uint64_t index, HostOffset at);
  /// Puts the blocks into the table in memory, and writes the parts of the table they are in.
  struct NewBlock {
    uint64_t index = 0;
    HostOffset at;
  };
  io::Task<void> write_table_entries(std::vector<NewBlock> blocks);
  /// Writes a whole new, larger table with the old entries and `added`; it becomes the table here.
  io::Task<void> write_new_table(HostOffset at, uint64_t clusters, std::vector<NewBlock> added);

  /// Forgets clean blocks other than `keep` and [first, end).
  void drop_clean(uint64_t keep, uint64_t first = 0, uint64_t end = 0);

 private:
  /// An idle image must not cost much, so what is zero up to a block's end is not kept.
  struct Block {
    AlignedBytes bytes;  // whole parts, from the block's start
    std::vector<bool> part_dirty;
    bool dirty = false;
  };

  uint64_t block_of(HostCluster cluster) const { return geometry_.refcount_table_index(cluster); }
  size_t part_of(uint64_t index_in_block) const {
    return ((index_in_block << geometry_.refcount_order) / 8) / part_bytes_;
  }
  AlignedBytes whole(const Block& block) const;
  void set_table_entry(const NewBlock& block);

  io::File& file_;
  std::string image_name_;
  Geometry geometry_;
  HostOffset table_offset_;
  size_t part_bytes_;
  uint64_t table_clusters_;
  std::vector<uint64_t> table_;  // offsets of blocks, as on the disk, up to the last one there is
  std::map<uint64_t, Block> blocks_;
  size_t dirty_blocks_ = 0;
};

}  // namespace qcow
