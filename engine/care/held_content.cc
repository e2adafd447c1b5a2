// SPDX-License-Identifier: Apache-2.0
#include "engine/care/held_content.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <system_error>
#include <utility>

#include "engine/values/layout.h"
#include "io/log.h"

namespace engine {

io::Task<std::unique_ptr<HeldContent>> HeldContent::open(io::Runtime runtime,
                                                         std::string image_path) {
  auto held = std::make_unique<HeldContent>();
  qcow::ChainOptions options;
  options.lock = false;
  options.alone = true;
  try {
    held->sums_ = co_await qcow::SumsReader::open(runtime.files, sums_path(image_path));
  } catch (const std::exception& failure) {
    const auto* const error = dynamic_cast<const std::system_error*>(&failure);
    const bool is_missing = error != nullptr && error->code().value() == ENOENT;
    // A point of an earlier version has none.
    if (!is_missing)
      io::log(io::LogLevel::warning, "{}; the tables of {} are read in its place", failure.what(),
              image_path);
  }
  if (held->sums_ && held->sums_->footer().cluster_bits != kClusterBits) held->sums_.reset();
  if (!held->sums_) held->image_ = co_await qcow::Chain::open(runtime, image_path, options);
  co_return held;
}

io::Task<std::vector<HeldRun>> HeldContent::of_table(uint64_t index) {
  if (sums_) co_return co_await by_manifest(index);
  co_return co_await by_tables(index);
}

io::Task<std::vector<HeldRun>> HeldContent::by_manifest(uint64_t index) {
  std::vector<HeldRun> held;
  const std::optional<qcow::SumBlock> block = co_await sums_->block(index);
  if (!block) co_return held;
  const uint64_t first = index * kTableClusters;
  auto sum = block->sums.begin();
  for (const qcow::SumRun& run : block->runs) {
    HeldRun one{.clusters = {first + run.first, first + run.end()},
                .zero = run.kind == qcow::SumKind::zero};
    if (!one.zero) {
      one.sums.assign(sum, sum + run.count);
      sum += run.count;
    }
    held.push_back(std::move(one));
  }
  co_return held;
}

/// A cluster that is kept in part, by an image of other clusters than varve makes, is not held.
io::Task<std::vector<HeldRun>> HeldContent::by_tables(uint64_t index) {
  std::vector<HeldRun> held;
  const uint64_t bytes = kTableClusters * kClusterBytes;
  const uint64_t from = std::min(index * bytes, image_->size());
  const uint64_t end = std::min(from + bytes, image_->size());
  if (from >= end) co_return held;
  const std::vector<qcow::Run> runs = co_await image_->runs({from}, {end});
  for (const qcow::Run& run : runs) {
    if (run.kind == qcow::MappingKind::unallocated) continue;
    const uint64_t run_end = run.guest.bytes + run.length;
    const ClusterRange clusters{(run.guest.bytes + kClusterBytes - 1) / kClusterBytes,
                                run_end == image_->size()
                                    ? (run_end + kClusterBytes - 1) / kClusterBytes
                                    : run_end / kClusterBytes};
    if (clusters.first < clusters.end) held.push_back({.clusters = clusters});
  }
  co_return held;
}

}  // namespace engine
