// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/elision.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <exception>

#include "io/log.h"
#include "io/planted_bug.h"

namespace qcow {

namespace {
constexpr uint64_t kReadBytesMax = 1 << 20;
constexpr uint64_t kComparedBytesMax = 4 << 20;
static_assert(kComparedBytesMax >= uint64_t{1} << kClusterBitsMax);
}  // namespace

Elision::Elision(ImageParts& parts, ImageReader& reader)
    : buffers_(parts.runtime.buffers),
      geometry_(parts.geometry),
      parents_(*parts.parents),
      map_(*parts.map),
      reader_(reader),
      sums_(parts.runtime, *parts.parents, parts.options.elide_by),
      comparing_(parts.runtime.executor, kComparedBytesMax) {}

io::Task<std::vector<bool>> Elision::find_equal(GuestCluster first, uint64_t count,
                                                const std::byte* bytes, std::span<const Sum> sums) {
  assert(sums.size() == count);
  std::vector<bool> equal = co_await suggested(first, count, sums);
  const uint64_t at_once =
      std::max<uint64_t>(1, kReadBytesMax >> geometry_.cluster_bits);  // clusters
  for (uint64_t at = 0; at < count;) {
    uint64_t end = at + 1;
    while (end < count && equal[end] == equal[at] && end - at < at_once) ++end;
    if (equal[at]) {
      co_await confirm(first + at, end - at, bytes + (at << geometry_.cluster_bits), equal, at);
    }
    at = end;
  }
  co_return equal;
}

/// Those whose checksum is the parents', as the manifests say.
io::Task<std::vector<bool>> Elision::suggested(GuestCluster first, uint64_t count,
                                               std::span<const Sum> sums) {
  std::vector<bool> equal(count);
  std::vector<std::optional<Sum>> below;
  try {
    below = co_await sums_.sums_of(first, count);
  } catch (const std::exception& failure) {
    tell(failure);
    co_return equal;
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (below[i] != sums[i]) continue;
    const L2Table* const table = co_await map_.load(first + i);
    equal[i] = map_.mapping_of(table, first + i).kind == MappingKind::unallocated;
    PLANTED_BUG(elision_of_own_cluster, equal[i] = true)
  }
  co_return equal;
}

/// Of clusters that are all suggested; equal[at + i] becomes false for those that differ.
io::Task<void> Elision::confirm(GuestCluster first, uint64_t count, const std::byte* bytes,
                                std::vector<bool>& equal, uint64_t at) {
  PLANTED_BUG(elision_unconfirmed, co_return )
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const uint64_t length = count << geometry_.cluster_bits;
  const io::Grant turn = co_await io::Grant::acquire(comparing_, length);
  io::Buffer below = buffers_.acquire_over_budget(length);
  bool read = false;
  try {
    co_await parents_.read(geometry_.start_of(first).bytes, below.bytes());
    read = true;
  } catch (const std::exception& failure) {
    tell(failure);
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t from = i * cluster_bytes;
    equal[at + i] = read && std::memcmp(below.data() + from, bytes + from, cluster_bytes) == 0;
  }
}

io::Task<bool> Elision::fill_or_find_equal(GuestCluster cluster, PartialCluster& partial) {
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  const io::Grant turn = co_await io::Grant::acquire(comparing_, cluster_bytes);
  io::Buffer below = buffers_.acquire_over_budget(cluster_bytes);
  co_await reader_.read_base(cluster, 0, below.bytes());
  const bool equal = std::ranges::all_of(partial.valid, [&](const ByteRange& range) {
    return std::memcmp(below.data() + range.from, partial.bytes.data() + range.from,
                       range.to - range.from) == 0;
  });
  if (equal) co_return true;
  for (const ByteRange& gap : partial.gaps()) {
    std::memcpy(partial.bytes.data() + gap.from, below.data() + gap.from, gap.to - gap.from);
  }
  partial.mark_complete();
  co_return false;
}

/// Once: a chain that cannot be read can be so in a million places.
void Elision::tell(const std::exception& failure) {
  if (std::exchange(told_, true)) return;
  io::log(io::LogLevel::warning, "qcow: {}; what cannot be compared is stored", failure.what());
}

}  // namespace qcow
