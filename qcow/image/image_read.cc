#include <algorithm>

#include "io/failure.h"
#include "io/task_scope.h"
#include "qcow/format/compression.h"
#include "qcow/image/image_parts.h"

namespace qcow {

/// Neighbouring clusters that are read alike; data only where the host clusters are neighbours too.
struct Image::ReadRun {
  Mapping mapping;
  uint64_t offset = 0;  // on the disk, bytes
  uint64_t length = 0;  // bytes
};

std::vector<Image::ReadRun> Image::runs_in_table(const L2Table* table, uint64_t offset,
                                                 uint64_t end) const {
  std::vector<ReadRun> runs;
  while (offset < end) {
    const uint64_t inside = geometry_.offset_in_cluster(offset);
    const uint64_t length = std::min(end - offset, geometry_.cluster_bytes() - inside);
    Mapping mapping = map_->mapping_of(table, geometry_.cluster_of(offset));
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

/// A failed image is still read while all that was accepted is on the disk, in memory, or known to
/// be lost. After a failed sync this is unknown: the kernel may have dropped the pages that it
/// could not write, and the file has older bytes there. What another program has truncated would
/// read as zeroes.
void Image::require_readable() const {
  if (failure_ && (state_ == State::closed || content_unknown_)) std::rethrow_exception(failure_);
}

io::Task<void> Image::read(uint64_t offset, std::span<std::byte> into) {
  require_readable();
  if (into.empty()) co_return;
  const uint64_t end = offset + into.size();
  const uint64_t first = geometry_.cluster_of(offset);
  const RangeQueue::Hold hold = co_await ranges_.enter(
      first, geometry_.cluster_of(end - 1) - first + 1, RangeQueue::Access::shared);
  require_readable();
  for (uint64_t at = offset; at < end;) {
    const uint64_t l1_index = geometry_.l1_index_of(geometry_.cluster_of(at));
    const uint64_t part_end = std::min(end, (l1_index + 1) * geometry_.l2_table_guest_bytes());
    const L2Table* const table = co_await map_->load(l1_index);
    const std::vector<ReadRun> runs = runs_in_table(table, at, part_end);
    auto read_all = [this, &runs, into, offset](io::TaskScope& reads) -> io::Task<void> {
      for (const ReadRun& run : runs) {
        reads.spawn(read_run(run, into.subspan(run.offset - offset, run.length)));
      }
      co_return;
    };
    co_await io::run_scoped(std::move(read_all));
    at = part_end;
  }
  partials_->overlay(offset, into);
}

io::Task<void> Image::read_run(ReadRun run, std::span<std::byte> into) {
  switch (run.mapping.kind) {
    case MappingKind::unallocated:
      co_await read_below(run.offset, into);
      break;
    case MappingKind::zero:
      std::fill(into.begin(), into.end(), std::byte{0});
      break;
    case MappingKind::data:
      co_await file_->read(run.mapping.host.bytes, into);
      if (failure_ && (content_unknown_ || write_behind_->lost(run.mapping.host, into.size()))) {
        std::rethrow_exception(failure_);  // the file may have older bytes there
      }
      break;
    case MappingKind::compressed:
      co_await read_compressed(run.mapping, geometry_.cluster_of(run.offset),
                               static_cast<uint32_t>(geometry_.offset_in_cluster(run.offset)),
                               into);
      break;
  }
}

/// What the parents hold; zeroes without any, and past their end.
io::Task<void> Image::read_below(uint64_t offset, std::span<std::byte> into) {
  const uint64_t from_parents = parents_ && offset < parents_->size()
                                    ? std::min<uint64_t>(into.size(), parents_->size() - offset)
                                    : 0;
  const auto rest = into.subspan(from_parents);
  std::fill(rest.begin(), rest.end(), std::byte{0});
  if (from_parents > 0) co_await parents_->read(offset, into.first(from_parents));
}

io::Task<void> Image::read_compressed(Mapping mapping, uint64_t cluster, uint32_t at,
                                      std::span<std::byte> into) {
  AlignedBytes stream(mapping.compressed_bytes());
  co_await file_->read(mapping.host.bytes, stream.bytes());
  AlignedBytes whole(geometry_.cluster_bytes());
  if (!decompress(header_.compression, stream.bytes(), whole.bytes())) {
    throw io::failure("decompress", name_, cluster << geometry_.cluster_bits, whole.size(), EIO);
  }
  std::copy_n(whole.data() + at, into.size(), into.data());
}

/// Bytes of one cluster as they are without what waits in memory.
io::Task<void> Image::read_base(uint64_t cluster, uint32_t at, std::span<std::byte> into) {
  const L2Table* const table = co_await map_->load(geometry_.l1_index_of(cluster));
  const uint64_t offset = (cluster << geometry_.cluster_bits) + at;
  const std::vector<ReadRun> runs = runs_in_table(table, offset, offset + into.size());
  co_await read_run(runs.front(), into);
}

}  // namespace qcow
