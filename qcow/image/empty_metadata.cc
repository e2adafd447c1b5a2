// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/empty_metadata.h"

#include <algorithm>

#include "io/task_scope.h"
#include "qcow/format/aligned_bytes.h"
#include "qcow/format/zero_check.h"

namespace qcow {
namespace {

constexpr uint64_t kBlockBytes = 4096;  // what file systems give back at least
constexpr uint64_t kWorthwhileShare = 256;

/// False when the file system cannot.
io::Task<bool> punch_empty_blocks(io::File& file, HostOffset cluster, uint64_t cluster_bytes) {
  AlignedBytes content(cluster_bytes);
  co_await file.read(cluster.bytes, content.bytes());
  const auto is_empty = [&](uint64_t at) {
    return is_zero(content.bytes().subspan(at, kBlockBytes));
  };
  for (uint64_t from = 0; from < cluster_bytes; from += kBlockBytes) {
    if (!is_empty(from)) continue;
    uint64_t end = from + kBlockBytes;
    while (end < cluster_bytes && is_empty(end)) end += kBlockBytes;
    const bool done = co_await file.punch_hole(cluster.bytes + from, end - from);
    if (!done) co_return false;
    from = end;
  }
  co_return true;
}

}  // namespace

io::Task<void> punch_empty_metadata(io::File& file, Geometry geometry,
                                    std::vector<HostOffset> clusters) {
  constexpr size_t kAtOnce = 16;
  const uint64_t cluster_bytes = geometry.cluster_bytes();
  if (cluster_bytes <= kBlockBytes) co_return;
  bool able = true;
  for (size_t first = 0; able && first < clusters.size(); first += kAtOnce) {
    const size_t end = std::min(first + kAtOnce, clusters.size());
    const auto punch = [&](HostOffset cluster) -> io::Task<void> {
      const bool done = co_await punch_empty_blocks(file, cluster, cluster_bytes);
      able = able && done;
    };
    const auto batch = [&](io::TaskScope& scope) -> io::Task<void> {
      for (size_t at = first; at < end; ++at) scope.spawn(punch(clusters[at]));
      co_return;
    };
    co_await io::run_scoped(batch);
  }
}

bool is_mostly_metadata(uint64_t metadata_bytes, uint64_t file_bytes) {
  return metadata_bytes > file_bytes / kWorthwhileShare;
}

}  // namespace qcow
