#include <array>

#include "qcow/image_parts.h"

namespace qcow {

/// Reads every L2 table, once, while the image opens. Memory is one bit for each cluster of the
/// file, for that time.
io::Task<Image::Usage> Image::scan_tables() {
  Usage usage;
  const uint64_t file_bytes = co_await file_->size();
  usage.named.resize(std::max(geometry_.clusters_for(file_bytes), allocator_->end_cluster()));
  const auto name_all = [&](HostOffset at, uint64_t clusters) {
    for (uint64_t i = 0; i < clusters; ++i) usage.name(geometry_.host_cluster_index(at) + i, true);
  };
  const Refcounts& refcounts = allocator_->refcounts();
  name_all({0}, 1);
  name_all(refcounts.table_offset(), refcounts.table_clusters());
  for (uint64_t i = 0; i < refcounts.blocks_max(); ++i) {
    if (refcounts.has_block(i)) name_all(refcounts.block_offset(i), 1);
  }
  name_all(header_.l1_table, geometry_.clusters_for(header_.l1_entry_count * uint64_t{8}));

  AlignedBytes table(geometry_.cluster_bytes());
  for (uint64_t l1_index = 0; l1_index < geometry_.l1_entries(); ++l1_index) {
    const auto entry = L1Entry::decode(map_->l1_raw(l1_index), geometry_.cluster_bits);
    if (!entry) usage.sound = false;  // met and reported when it is used
    if (!entry || !entry->table) continue;
    usage.name(geometry_.host_cluster_index(entry->table), entry->copied);
    ++usage.owned;
    co_await file_->read(entry->table.bytes, table.bytes());
    for (uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const auto raw = io::load_be<uint64_t>(table.data() + i * 8);
      if (raw == 0 || raw == kEntryZero) continue;
      const auto mapping = decode_l2_entry(raw, geometry_.cluster_bits, header_.version);
      if (!mapping) usage.sound = false;
      if (mapping && mapping->host) scan_entry(usage, *mapping);
    }
  }
  co_return usage;
}

void Image::scan_entry(Usage& usage, Mapping mapping) const {
  const uint64_t first = geometry_.host_cluster_index(mapping.host);
  if (mapping.kind != MappingKind::compressed) {
    usage.name(first, mapping.copied);
    if (mapping.copied) ++usage.owned;
    return;
  }
  const HostOffset last_byte{mapping.host.bytes + mapping.compressed_bytes() - 1};
  // Its last sectors may be said to lie past the end of a file that was cut short.
  const uint64_t last = std::max(
      first, std::min<uint64_t>(geometry_.host_cluster_index(last_byte), usage.named.size() - 1));
  for (uint64_t cluster = first; cluster <= last; ++cluster) usage.name(cluster, false);
}

/// Clusters with a refcount that nothing names: handed out before a crash, and never mapped.
io::Task<void> Image::reclaim_leaks(const Usage& usage) {
  constexpr size_t kClustersAtOnce = 64 << 10;
  bool found = false;
  for (uint64_t from = 0;;) {
    std::vector<uint64_t> leaked =
        co_await allocator_->in_use_but(usage.named, from, kClustersAtOnce);
    if (leaked.empty()) break;
    // The tables may be in the page cache only; what the disk's tables name is not to be freed.
    if (!found) co_await file_->sync_data();
    found = true;
    from = leaked.back() + 1;
    co_await allocator_->give_back(leaked);
  }
  if (!found) co_return;
  co_await allocator_->write_refcounts();
  gave_back_ = true;
  co_await allocator_->lower_end();
}

/// FB2: two guest clusters share what each believes to be its own. Nothing more is written.
io::Task<void> Image::mark_corrupt() {
  constexpr uint64_t kIncompatibleFieldOffset = 72;
  if (header_.version >= 3) {
    std::array<std::byte, 8> field;
    io::store_be<uint64_t>(field.data(), header_.incompatible_features | kIncompatibleCorrupt);
    co_await file_->write(kIncompatibleFieldOffset, field);
    co_await file_->sync_data();
  }
  throw FormatError(name_, "two owners of one host cluster; marked corrupt");
}

}  // namespace qcow
