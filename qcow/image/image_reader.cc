// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "io/failure.h"
#include "io/task_scope.h"
#include "qcow/format/compression.h"
#include "qcow/image/image_reader.h"

namespace qcow {

ImageReader::ImageReader(ImageParts& parts)
    : name_(parts.name),
      file_(*parts.file),
      header_(parts.header),
      geometry_(parts.geometry),
      parents_(parts.parents.get()),
      map_(*parts.map),
      partials_(*parts.partials),
      ranges_(parts.ranges),
      write_behind_(*parts.write_behind),
      failure_(parts.failure) {}

/// Neighbouring clusters that are read alike; data only where the host clusters are neighbours too.
struct ImageReader::Run {
  Mapping mapping;
  uint64_t offset = 0;  // on the disk, bytes
  uint64_t length = 0;  // bytes
};

std::vector<ImageReader::Run> ImageReader::runs_in_table(const L2Table* table, uint64_t offset,
                                                         uint64_t end) const {
  std::vector<Run> runs;
  while (offset < end) {
    const uint64_t inside = geometry_.offset_in_cluster(offset);
    const uint64_t length = std::min(end - offset, geometry_.cluster_bytes() - inside);
    Mapping mapping = map_.mapping_of(table, cluster_of(offset));
    if (mapping.kind == MappingKind::data) mapping.host.bytes += inside;
    const bool continues = [&] {
      if (runs.empty() || runs.back().mapping.kind != mapping.kind) return false;
      if (mapping.kind == MappingKind::compressed) return false;
      return mapping.kind != MappingKind::data ||
             runs.back().mapping.host.bytes + runs.back().length == mapping.host.bytes;
    }();
    if (continues) {
      runs.back().length += length;
    } else {
      runs.push_back({mapping, offset, length});
    }
    offset += length;
  }
  return runs;
}

io::Task<void> ImageReader::read(uint64_t offset, std::span<std::byte> into) {
  failure_.require_readable();
  if (into.empty()) co_return;
  const uint64_t end = offset + into.size();
  const GuestCluster first = cluster_of(offset);
  const GuestCluster last = cluster_of(end - 1);
  const RangeQueue::Hold hold =
      co_await ranges_.enter(first, last - first + 1, RangeQueue::Access::shared);
  failure_.require_readable();
  for (uint64_t at = offset; at < end;) {
    const GuestCluster cluster = cluster_of(at);
    const GuestCluster table_end = cluster + geometry_.clusters_to_table_end(cluster);
    const uint64_t part_end = std::min(end, geometry_.start_of(table_end).bytes);
    const L2Table* const table = co_await map_.load(cluster);
    const std::vector<Run> runs = runs_in_table(table, at, part_end);
    auto read_all = [this, &runs, into, offset](io::TaskScope& reads) -> io::Task<void> {
      for (const Run& run : runs) {
        reads.spawn(read_run(run, into.subspan(run.offset - offset, run.length)));
      }
      co_return;
    };
    co_await io::run_scoped(std::move(read_all));
    at = part_end;
  }
  partials_.overlay(offset, into);
}

io::Task<void> ImageReader::read_run(Run run, std::span<std::byte> into) {
  switch (run.mapping.kind) {
    case MappingKind::unallocated:
      co_await read_below(run.offset, into);
      break;
    case MappingKind::zero:
      std::fill(into.begin(), into.end(), std::byte{0});
      break;
    case MappingKind::data:
      co_await file_.read(run.mapping.host.bytes, into);
      // After a failure the file may have older bytes there.
      if (failure_.content_unknown()) failure_.require_none();
      if (failure_ && write_behind_.lost(run.mapping.host, into.size())) failure_.require_none();
      break;
    case MappingKind::compressed:
      co_await read_compressed(run.mapping, cluster_of(run.offset),
                               static_cast<uint32_t>(geometry_.offset_in_cluster(run.offset)),
                               into);
      break;
  }
}

/// What the parents hold; zeroes without any, and past their end.
io::Task<void> ImageReader::read_below(uint64_t offset, std::span<std::byte> into) {
  const uint64_t from_parents = parents_ && offset < parents_->size()
                                    ? std::min<uint64_t>(into.size(), parents_->size() - offset)
                                    : 0;
  const auto rest = into.subspan(from_parents);
  std::fill(rest.begin(), rest.end(), std::byte{0});
  if (from_parents > 0) co_await parents_->read(offset, into.first(from_parents));
}

io::Task<void> ImageReader::read_compressed(Mapping mapping, GuestCluster cluster, uint32_t at,
                                            std::span<std::byte> into) {
  AlignedBytes stream(mapping.compressed_bytes());
  co_await file_.read(mapping.host.bytes, stream.bytes());
  AlignedBytes whole(geometry_.cluster_bytes());
  if (!decompress(header_.compression, stream.bytes(), whole.bytes())) {
    throw io::failure("decompress", name_, geometry_.start_of(cluster).bytes, whole.size(), EIO);
  }
  std::copy_n(whole.data() + at, into.size(), into.data());
}

io::Task<void> ImageReader::read_base(GuestCluster cluster, uint32_t at,
                                      std::span<std::byte> into) {
  const L2Table* const table = co_await map_.load(cluster);
  const uint64_t offset = geometry_.start_of(cluster).bytes + at;
  const std::vector<Run> runs = runs_in_table(table, offset, offset + into.size());
  co_await read_run(runs.front(), into);
}

io::Task<bool> ImageReader::reads_as_zero(GuestCluster cluster) {
  const RangeQueue::Hold hold = co_await ranges_.enter(cluster, 1, RangeQueue::Access::shared);
  if (partials_.find(cluster) != nullptr) co_return false;
  co_return co_await base_reads_as_zero(cluster);
}

io::Task<bool> ImageReader::base_reads_as_zero(GuestCluster cluster) {
  const L2Table* const table = co_await map_.load(cluster);
  const Mapping mapping = map_.mapping_of(table, cluster);
  if (mapping.kind == MappingKind::zero) co_return true;
  if (mapping.kind != MappingKind::unallocated) co_return false;
  const std::vector<ClusterRange> below = co_await zero_below(cluster, 1);
  co_return !below.empty();
}

io::Task<std::vector<ClusterRange>> ImageReader::zero_below(GuestCluster first, uint64_t count) {
  std::vector<ClusterRange> ranges;
  const uint64_t end = std::min(geometry_.start_of(first + count).bytes, geometry_.virtual_size);
  uint64_t zero_from = geometry_.start_of(first).bytes;
  const auto zero_until = [&](uint64_t to) {
    const GuestCluster from{geometry_.clusters_for(zero_from)};
    const GuestCluster until =
        to == geometry_.virtual_size ? GuestCluster{geometry_.guest_clusters()} : cluster_of(to);
    if (until > from) ranges.push_back({from, until});
  };
  for (uint64_t at = zero_from; at < end;) {
    if (!parents_ || at >= parents_->size()) break;
    constexpr size_t kExtentsMax = 1024;
    const uint64_t length = std::min(end, parents_->size()) - at;
    const std::vector<io::Extent> extents = co_await parents_->extents(at, length, kExtentsMax);
    for (const io::Extent& extent : extents) {
      if (!extent.zero) {
        zero_until(at);
        zero_from = at + extent.length;
      }
      at += extent.length;
    }
  }
  zero_until(end);
  co_return ranges;
}

}  // namespace qcow
