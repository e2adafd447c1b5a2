// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "io/task_scope.h"
#include "qcow/format/aligned_bytes.h"
#include "qcow/image/image.h"

namespace qcow {

namespace {
constexpr uint64_t kReadBytesAtOnce = 1 << 20;
}  // namespace

io::Task<std::vector<Confirmed>> Image::confirm(GuestCluster first,
                                                std::vector<std::optional<Sum>> sums) {
  std::vector<Confirmed> found(sums.size(), Confirmed::no_data);
  const uint64_t cluster_bytes = parts_.geometry.cluster_bytes();
  const uint64_t at_once = std::max<uint64_t>(1, kReadBytesAtOnce / cluster_bytes);
  AlignedBytes content(at_once * cluster_bytes);
  for (uint64_t from = 0; from < sums.size(); from += at_once) {
    const uint64_t count = std::min<uint64_t>(at_once, sums.size() - from);
    if (parts_.sums && !parts_.sums->has_room()) co_await parts_.sums->make_room();
    // No writer is between the read and the note: the note would hide what it wrote.
    const RangeQueue::Hold hold =
        co_await parts_.ranges.enter(first + from, count, RangeQueue::Access::shared);
    require_open("confirm", parts_.geometry.start_of(first + from).bytes, count * cluster_bytes);
    for (uint64_t i = from; i < from + count; ++i) {
      const L2Table* const table = co_await parts_.map->load(first + i);
      if (parts_.map->mapping_of(table, first + i).kind == MappingKind::data) {
        found[i] = Confirmed::different;
      }
    }
    const auto place = [&](uint64_t i) {
      return content.bytes().subspan((i - from) * cluster_bytes, cluster_bytes);
    };
    const auto compare = [&](uint64_t i) -> io::Task<void> {
      try {
        co_await reader_->read_base(first + i, 0, place(i));
        if (sum_of(place(i)) == *sums[i]) found[i] = Confirmed::same;
      } catch (const std::exception&) {
        // What cannot be read is not what was sent.
      }
    };
    const auto compare_known = [&](io::TaskScope& reads) -> io::Task<void> {
      for (uint64_t i = from; i < from + count; ++i) {
        if (found[i] == Confirmed::different && sums[i]) reads.spawn(compare(i));
      }
      co_return;
    };
    co_await io::run_scoped(compare_known);
    for (uint64_t i = from; i < from + count; ++i) {
      if (found[i] == Confirmed::same && parts_.sums) parts_.sums->note(first + i, *sums[i]);
    }
  }
  co_return found;
}

io::Task<void> Image::renew(GuestCluster cluster) {
  const uint64_t offset = parts_.geometry.start_of(cluster).bytes;
  const uint64_t length = std::min(parts_.geometry.cluster_bytes(), size() - offset);
  Chain* const parents = parts_.parents.get();
  if (parents == nullptr || offset >= parents->size()) {
    co_await write_zeroes(offset, length, io::ZeroMode::may_unmap);
    co_return;
  }
  io::Buffer below = co_await parts_.runtime.buffers.acquire(length, 0);
  std::ranges::fill(below.bytes(), std::byte{0});
  const uint64_t there = std::min(length, parents->size() - offset);
  co_await parents->read(offset, below.bytes().first(there));
  co_await write(offset, std::move(below));
}

}  // namespace qcow
