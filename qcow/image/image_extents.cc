// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "qcow/image/image_reader.h"

namespace qcow {

namespace {

void append(std::vector<io::Extent>& extents, io::Extent extent) {
  if (!extents.empty() && extents.back().same_kind(extent)) {
    extents.back().length += extent.length;
  } else {
    extents.push_back(extent);
  }
}

}  // namespace

io::Task<std::vector<io::Extent>> ImageReader::extents(uint64_t offset, uint64_t length,
                                                       size_t count_max) {
  std::vector<io::Extent> extents;
  const uint64_t end = offset + length;
  while (offset < end) {
    const GuestCluster first = cluster_of(offset);
    const GuestCluster next_table = first + geometry_.clusters_to_table_end(first);
    const uint64_t table_end = std::min(end, geometry_.start_of(next_table).bytes);
    const L2Table* const table = co_await map_.load(first);
    // One run of one kind, then the parents are asked, so the table is looked up again after it.
    while (offset < table_end) {
      const GuestCluster cluster = cluster_of(offset);
      const bool partial = partials_.find(cluster) != nullptr;
      const MappingKind kind = map_.mapping_of(table, cluster).kind;
      if (kind == MappingKind::unallocated && !partial) break;
      const uint64_t cluster_end = geometry_.start_of(cluster + 1).bytes;
      const bool zero = kind == MappingKind::zero && !partial;
      append(extents, {std::min(cluster_end, table_end) - offset, zero, 1});
      if (extents.size() > count_max) break;
      offset = std::min(cluster_end, table_end);
    }
    // What is unallocated here: at once all of a table that does not exist.
    uint64_t run_end = table == nullptr && partials_.empty() ? table_end : offset;
    while (run_end < table_end && extents.size() <= count_max) {
      const GuestCluster cluster = cluster_of(run_end);
      if (map_.mapping_of(table, cluster).kind != MappingKind::unallocated ||
          partials_.find(cluster) != nullptr) {
        break;
      }
      run_end = std::min(table_end, geometry_.start_of(cluster + 1).bytes);
    }
    if (run_end > offset) co_await extents_below(offset, run_end - offset, count_max, extents);
    offset = run_end;
    if (extents.size() > count_max) {
      extents.resize(count_max);
      break;
    }
  }
  co_return extents;
}

/// The parents' answer for a range of which nothing is stored here; one extent more than
/// `count_max` says that it was cut.
io::Task<void> ImageReader::extents_below(uint64_t offset, uint64_t length, size_t count_max,
                                          std::vector<io::Extent>& extents) {
  const uint64_t end = offset + length;
  while (offset < end && extents.size() <= count_max) {
    if (!parents_ || offset >= parents_->size()) {
      append(extents, {end - offset, true, 0});
      co_return;
    }
    const uint64_t below = std::min(end, parents_->size()) - offset;
    const std::vector<io::Extent> parents =
        co_await parents_->extents(offset, below, count_max + 1);
    for (io::Extent extent : parents) {
      if (extent.depth > 0) ++extent.depth;
      append(extents, extent);
      offset += extent.length;
    }
  }
  if (extents.size() > count_max + 1) extents.resize(count_max + 1);
}

}  // namespace qcow
