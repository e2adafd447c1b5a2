// SPDX-License-Identifier: Apache-2.0
#include "qcow/check/check_walk.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/big_endian.h"

namespace qcow {

namespace {

// Fixed part of a snapshot table entry and of a bitmap directory entry.
constexpr uint64_t kSnapshotBytes = 40;
constexpr uint64_t kSnapshotsMax = 65536;  // qemu's limit
constexpr uint64_t kBitmapBytes = 24;
constexpr uint64_t kBitmapExtensionBytes = 24;
constexpr uint64_t kBitmapDirectoryBytesMax = 64 << 20;

struct Snapshot {
  HostOffset l1_table;
  uint32_t l1_entry_count = 0;
  uint64_t entry_bytes = 0;

  static Snapshot decode(std::span<const std::byte> wire) {
    io::BigEndianReader in(wire);
    Snapshot snapshot;
    snapshot.l1_table = {in.take<uint64_t>()};
    snapshot.l1_entry_count = in.take<uint32_t>();
    const uint64_t id_bytes = in.take<uint16_t>();
    const uint64_t name_bytes = in.take<uint16_t>();
    in.skip(20);  // date, clock, size of the machine's state
    const uint64_t extra_bytes = in.take<uint32_t>();
    snapshot.entry_bytes = round_up(kSnapshotBytes + extra_bytes + id_bytes + name_bytes, 8);
    return snapshot;
  }
};

struct BitmapEntry {
  HostOffset table;
  uint32_t table_entry_count = 0;
  uint64_t entry_bytes = 0;

  static BitmapEntry decode(std::span<const std::byte> wire) {
    io::BigEndianReader in(wire);
    BitmapEntry entry;
    entry.table = {in.take<uint64_t>()};
    entry.table_entry_count = in.take<uint32_t>();
    in.skip(6);  // flags, type, granularity
    const uint64_t name_bytes = in.take<uint16_t>();
    const uint64_t extra_bytes = in.take<uint32_t>();
    entry.entry_bytes = round_up(kBitmapBytes + extra_bytes + name_bytes, 8);
    return entry;
  }
};

}  // namespace

ReferenceWalk::ReferenceWalk(io::File& file, const Header& header, uint64_t file_bytes,
                             ReferenceVisitor& visitor)
    : file_(file),
      header_(header),
      geometry_(header.geometry()),
      file_bytes_(file_bytes),
      visitor_(visitor) {}

io::Task<void> ReferenceWalk::run() {
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  visitor_.on_reference({0}, cluster_bytes, Owner::header);
  co_await walk_l1(header_.l1_table, header_.l1_entry_count, true);
  co_await walk_snapshots();
  visitor_.on_reference(header_.refcount_table, header_.refcount_table_clusters * cluster_bytes,
                        Owner::refcount_table);
  co_await walk_bitmaps();
  co_await walk_refcount_blocks();
}

io::Task<std::vector<uint64_t>> ReferenceWalk::read_words(HostOffset at, uint64_t count) {
  std::vector<uint64_t> words(count);
  if (!words.empty()) co_await file_.read(at.bytes, std::as_writable_bytes(std::span(words)));
  for (uint64_t& word : words) word = io::swap_big_endian(word);
  co_return words;
}

io::Task<void> ReferenceWalk::walk_l1(HostOffset table, uint64_t entry_count, bool active) {
  visitor_.on_reference(table, entry_count * 8, active ? Owner::l1_table : Owner::inactive);
  const std::vector<uint64_t> entries = co_await read_words(table, entry_count);
  for (const uint64_t raw : entries) {
    if (raw == 0) continue;
    const HostOffset l2_table{raw & kEntryOffsetMask};
    if ((raw & kL1ReservedMask) != 0) {
      visitor_.on_problem(fmt::format("L1 entry {:#x} has reserved bits set", raw));
    }
    if (geometry_.offset_in_cluster(l2_table.bytes) != 0) {
      visitor_.on_problem(fmt::format("L1 entry {:#x}: table is not cluster aligned", raw));
    }
    if (!l2_table && raw == kEntryCopied) {
      visitor_.on_problem(fmt::format("L1 entry {:#x}: copied flag without a table", raw));
      continue;
    }
    visitor_.on_reference(l2_table, geometry_.cluster_bytes(),
                          active ? Owner::l2_table : Owner::inactive);
    if (active && l2_table) {
      visitor_.on_copied_flag(l2_table, (raw & kEntryCopied) != 0, raw, Owner::l2_table);
    }
    co_await walk_l2(l2_table, active);
  }
}

io::Task<void> ReferenceWalk::walk_l2(HostOffset table, bool active) {
  const std::vector<uint64_t> entries = co_await read_words(table, geometry_.l2_entries());
  for (const uint64_t raw : entries) {
    if (raw != 0) visit_l2_entry(raw, active);
  }
}

void ReferenceWalk::visit_l2_entry(uint64_t raw, bool active) {
  if ((raw & kEntryCompressed) != 0) return visit_compressed(raw, active);
  const HostOffset at{raw & kEntryOffsetMask};
  const bool zero = (raw & kEntryZero) != 0;
  if ((raw & kL2ReservedMask) != 0 || (zero && header_.version < 3)) {
    visitor_.on_problem(fmt::format("L2 entry {:#x} has reserved bits set", raw));
  }
  if (active) {
    const MappingKind stored = at ? MappingKind::data : MappingKind::unallocated;
    visitor_.on_guest_cluster({zero ? MappingKind::zero : stored, at, false, 0});
  }
  if (!at && (raw & kEntryCopied) != 0) {  // LT8: refused on read
    visitor_.on_problem(fmt::format("L2 entry {:#x}: copied flag without a cluster", raw));
  }
  if (!at) return;
  if (geometry_.offset_in_cluster(at.bytes) != 0) {
    visitor_.on_problem(fmt::format("L2 entry {:#x}: cluster is not aligned", raw));
  }
  visitor_.on_reference(at, geometry_.cluster_bytes(), active ? Owner::data : Owner::inactive);
  if (active) visitor_.on_copied_flag(at, (raw & kEntryCopied) != 0, raw, Owner::data);
}

void ReferenceWalk::visit_compressed(uint64_t raw, bool active) {
  const Mapping mapping = decode_compressed_entry(raw, geometry_.cluster_bits);
  if (mapping.copied) {
    visitor_.on_problem(fmt::format("L2 entry {:#x}: copied flag on a compressed cluster", raw));
  }
  if (active) visitor_.on_guest_cluster(mapping);
  visitor_.on_reference(mapping.host, mapping.compressed_bytes(),
                        active ? Owner::compressed : Owner::inactive);
}

bool ReferenceWalk::admit(std::string_view what, HostOffset at, uint64_t bytes,
                          uint64_t& bytes_left) {
  const bool inside = at.bytes <= file_bytes_ && bytes <= round_up(file_bytes_, 512) - at.bytes;
  if (inside && bytes <= bytes_left) {
    bytes_left -= bytes;
    return true;
  }
  visitor_.on_problem(
      inside ? fmt::format("{} tables take more than the file has", what)
             : fmt::format("{} at {:#x}+{} is past the end of file", what, at.bytes, bytes));
  return false;
}

io::Task<void> ReferenceWalk::walk_snapshots() {
  if (header_.snapshot_count > kSnapshotsMax) {
    visitor_.on_problem(fmt::format("{} snapshots are too many", header_.snapshot_count));
    co_return;
  }
  uint64_t at = header_.snapshots.bytes;
  uint64_t bytes_left = file_bytes_;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    uint64_t any = kSnapshotBytes;
    if (!admit(fmt::format("snapshot {}", i), {at}, kSnapshotBytes, any)) co_return;
    std::vector<std::byte> wire(kSnapshotBytes);
    co_await file_.read(at, wire);
    const Snapshot snapshot = Snapshot::decode(wire);
    at += snapshot.entry_bytes;
    const uint64_t l1_bytes = uint64_t{snapshot.l1_entry_count} * 8;
    if (l1_bytes > kL1BytesMax) {
      visitor_.on_problem(fmt::format("snapshot {}: L1 table is too large", i));
      continue;
    }
    if (!admit(fmt::format("snapshot {}: L1 table", i), snapshot.l1_table, l1_bytes, bytes_left)) {
      continue;
    }
    co_await walk_l1(snapshot.l1_table, snapshot.l1_entry_count, false);
  }
  if (header_.snapshot_count > 0) {
    visitor_.on_reference(header_.snapshots, at - header_.snapshots.bytes, Owner::snapshot_table);
  }
}

io::Task<void> ReferenceWalk::walk_bitmaps() {
  // Without the bit some program that knows no bitmaps has written: they are not to be followed.
  if ((header_.autoclear_features & kAutoclearBitmaps) == 0) co_return;
  uint64_t bytes_left = file_bytes_;
  for (const Extension& extension : header_.other_extensions) {
    if (extension.type != kExtensionBitmaps) continue;
    if (extension.content.size() < kBitmapExtensionBytes) continue;
    const uint64_t bytes = io::load_be<uint64_t>(&extension.content[8]);
    const HostOffset directory{io::load_be<uint64_t>(&extension.content[16])};
    if (bytes > kBitmapDirectoryBytesMax) {
      visitor_.on_problem("bitmap directory is too large");
      continue;
    }
    if (!admit("bitmap directory", directory, bytes, bytes_left)) continue;
    visitor_.on_reference(directory, bytes, Owner::bitmap);
    std::vector<std::byte> content(bytes);
    co_await file_.read(directory.bytes, content);
    for (uint64_t at = 0; bytes - at >= kBitmapBytes;) {
      const BitmapEntry entry = BitmapEntry::decode(std::span(content).subspan(at));
      const uint64_t table_bytes = uint64_t{entry.table_entry_count} * 8;
      if (admit("bitmap table", entry.table, table_bytes, bytes_left)) {
        co_await walk_bitmap_table(entry.table, entry.table_entry_count);
      }
      at += std::min(entry.entry_bytes, bytes - at);
    }
  }
}

io::Task<void> ReferenceWalk::walk_bitmap_table(HostOffset table, uint64_t entry_count) {
  visitor_.on_reference(table, entry_count * 8, Owner::bitmap);
  constexpr uint64_t kEntriesAtOnce = 128 << 10;
  for (uint64_t first = 0; first < entry_count; first += kEntriesAtOnce) {
    const HostOffset part{table.bytes + first * 8};
    const std::vector<uint64_t> entries =
        co_await read_words(part, std::min(kEntriesAtOnce, entry_count - first));
    for (const uint64_t raw : entries) {
      const HostOffset at{raw & kEntryOffsetMask};
      if (at) visitor_.on_reference(at, geometry_.cluster_bytes(), Owner::bitmap);
    }
  }
}

io::Task<void> ReferenceWalk::walk_refcount_blocks() {
  const uint64_t entry_count =
      header_.refcount_table_clusters * geometry_.refcount_table_entries_per_cluster();
  const std::vector<uint64_t> entries = co_await read_words(header_.refcount_table, entry_count);
  for (const uint64_t raw : entries) {
    if (raw == 0) continue;
    if (!decode_refcount_table_entry(raw, geometry_.cluster_bits)) {
      visitor_.on_problem(fmt::format("refcount table entry {:#x} is invalid", raw));
      continue;
    }
    visitor_.on_reference({raw}, geometry_.cluster_bytes(), Owner::refcount_block);
  }
}

}  // namespace qcow
