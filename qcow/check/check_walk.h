// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/task.h"
#include "qcow/format/entries.h"
#include "qcow/format/header.h"

namespace qcow {

enum class Owner : uint8_t {
  header,
  l1_table,
  l2_table,
  data,
  compressed,
  refcount_table,
  refcount_block,
  snapshot_table,
  inactive,  ///< anything of an internal snapshot
  bitmap,
};

/// Told by ReferenceWalk about every use of host bytes.
class ReferenceVisitor {
 public:
  virtual ~ReferenceVisitor() = default;

  virtual void on_reference(HostOffset at, uint64_t bytes, Owner owner) = 0;
  /// An entry of the active L1 or of one of its L2 tables claims that its cluster's refcount is
  /// one (`copied`), or that it is not.
  virtual void on_copied_flag(HostOffset at, bool copied, uint64_t raw, Owner owner) = 0;
  virtual void on_guest_cluster(const Mapping& mapping) = 0;
  virtual void on_problem(std::string text) = 0;
};

/// One pass over everything in an image that refers to host clusters: header, L1 and L2 tables of
/// the active layer and of internal snapshots, snapshot table, bitmaps, refcount table and blocks
/// (last, in the table's order). Damaged entries are followed as far as qemu-img check does.
///
/// It ends whatever the file says: a table is followed where it lies inside the file, and all
/// tables of snapshots together, as those of bitmaps, take no more bytes than the file has.
class ReferenceWalk {
 public:
  /// The references live until run() has ended.
  ReferenceWalk(io::File& file, const Header& header, uint64_t file_bytes,
                ReferenceVisitor& visitor);

  io::Task<void> run();

 private:
  io::Task<void> walk_l1(HostOffset table, uint64_t entry_count, bool active);
  io::Task<void> walk_l2(HostOffset table, bool active);
  void visit_l2_entry(uint64_t raw, bool active);
  void visit_compressed(uint64_t raw, bool active);
  io::Task<void> walk_snapshots();
  io::Task<void> walk_bitmaps();
  io::Task<void> walk_bitmap_table(HostOffset table, uint64_t entry_count);
  io::Task<void> walk_refcount_blocks();
  io::Task<std::vector<uint64_t>> read_words(HostOffset at, uint64_t count);
  /// Whether the table may be followed, taking its bytes off what is left. Reports it otherwise.
  bool admit(std::string_view what, HostOffset at, uint64_t bytes, uint64_t& bytes_left);

  io::File& file_;
  const Header& header_;
  Geometry geometry_;
  uint64_t file_bytes_;
  ReferenceVisitor& visitor_;
};

}  // namespace qcow
