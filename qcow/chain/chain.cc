// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "io/task_scope.h"
#include "qcow/chain/parents.h"

namespace qcow {

namespace {

constexpr uint64_t kReadsInFlightMax = 64;
constexpr uint64_t kDecompressionsMax = 4;
constexpr uint32_t kPreferredBlockBytesMin = 4096;
// An extents() call builds no further region after this time; the caller asks again (M10).
constexpr std::chrono::milliseconds kExtentsPatience{20};

void append(std::vector<io::Extent>& extents, io::Extent next) {
  if (!extents.empty() && extents.back().same_kind(next)) {
    extents.back().length += next.length;
  } else {
    extents.push_back(next);
  }
}

io::Extent as_extent(const Run& run) {
  if (run.kind == MappingKind::unallocated) {
    return {.length = run.length, .zero = true, .depth = 0};
  }
  return {.length = run.length,
          .zero = run.kind == MappingKind::zero,
          .depth = static_cast<uint32_t>(run.layer + 1)};
}

}  // namespace

io::Task<std::unique_ptr<Chain>> Chain::open(io::Runtime runtime, std::string path,
                                             ChainOptions options) {
  std::vector<std::unique_ptr<Layer>> layers;
  const Layer::OpenOptions layer_options{options.lock, options.salvage};
  path = co_await io::follow_link(runtime.files, std::move(path));
  std::unique_ptr<Layer> top = co_await Layer::open(runtime, path, layer_options);
  std::vector<std::unique_ptr<Layer>> parents;
  if (!options.alone) parents = co_await open_parents(runtime, path, top->header(), options);
  layers.push_back(std::move(top));
  std::ranges::move(parents, std::back_inserter(layers));
  co_return std::unique_ptr<Chain>(new Chain(runtime, std::move(layers), std::move(options)));
}

io::Task<std::unique_ptr<Chain>> Chain::open_parents_of(io::Runtime runtime, std::string path,
                                                        Header header, ChainOptions options) {
  auto parents = co_await open_parents(runtime, std::move(path), std::move(header), options);
  if (parents.empty()) co_return nullptr;
  co_return std::unique_ptr<Chain>(new Chain(runtime, std::move(parents), std::move(options)));
}

Chain::Chain(io::Runtime runtime, std::vector<std::unique_ptr<Layer>> layers, ChainOptions options)
    : runtime_(runtime),
      layers_(std::move(layers)),
      map_(runtime, layers_, options.map_bytes_max),
      reads_(runtime.executor, kReadsInFlightMax),
      decompressions_(runtime.executor, kDecompressionsMax) {}

Chain::~Chain() = default;

uint64_t Chain::size() const { return layers_.front()->header().virtual_size; }

uint32_t Chain::preferred_block_size() const {
  const uint64_t cluster_bytes = layers_.front()->geometry().cluster_bytes();
  return std::max(kPreferredBlockBytesMin, static_cast<uint32_t>(cluster_bytes));
}

io::Task<void> Chain::read(uint64_t offset, std::span<std::byte> into) {
  const uint64_t inside = std::min<uint64_t>(into.size(), size() - std::min(offset, size()));
  if (inside > 0) co_await read_inside(offset, into.first(inside));
  const auto outside = into.subspan(inside);
  if (!outside.empty()) std::memset(outside.data(), 0, outside.size());
}

io::Task<void> Chain::read_inside(uint64_t offset, std::span<std::byte> into) {
  const std::vector<Run> found = co_await runs({offset}, {offset + into.size()});
  if (found.size() == 1) {
    co_await read_run(found.front(), into);
    co_return;
  }
  const auto read_all = [&](io::TaskScope& scope) -> io::Task<void> {
    for (const Run& run : found) {
      scope.spawn(read_run(run, into.subspan(run.guest.bytes - offset, run.length)));
    }
    co_return;
  };
  co_await io::run_scoped(read_all);
}

io::Task<std::vector<Run>> Chain::runs(GuestOffset from, GuestOffset end) {
  std::vector<Run> found;
  while (from < end) {
    const auto region = co_await map_.region_at(from);
    const GuestOffset region_end = std::min(end, map_.region_end(from));
    if (!region) {
      found.push_back({.guest = from, .length = region_end.bytes - from.bytes});
      from = region_end;
      continue;
    }
    while (from < region_end) {
      found.push_back(region->run_at(from, region_end));
      from.bytes += found.back().length;
    }
  }
  co_return found;
}

/// Fills `into`, which is as long as the run.
io::Task<void> Chain::read_run(Run run, std::span<std::byte> into) {
  const bool stores = run.kind == MappingKind::data || run.kind == MappingKind::compressed;
  // A layer's bytes past its own end, or past a shorter layer's above it, are not the disk's (BC3).
  const uint64_t limit = stores ? map_.limit(run.layer) : 0;
  const uint64_t stored = std::min(run.length, limit - std::min(limit, run.guest.bytes));
  if (stored > 0) {
    const io::Grant slot = co_await io::Grant::acquire(reads_, 1);
    if (run.kind == MappingKind::data) {
      co_await layers_[run.layer]->read_data(run.host, into.first(stored));
    } else {
      co_await read_compressed_run(run, into.first(stored));
    }
  }
  const auto rest = into.subspan(stored);
  if (!rest.empty()) std::memset(rest.data(), 0, rest.size());
}

io::Task<void> Chain::read_compressed_run(Run run, std::span<std::byte> into) {
  const io::Grant slot = co_await io::Grant::acquire(decompressions_, 1);
  Layer& layer = *layers_[run.layer];
  const uint64_t cluster_bytes = layer.geometry().cluster_bytes();
  if (into.size() == cluster_bytes) {
    co_await layer.read_compressed(run.mapping, run.guest, into);
    co_return;
  }
  std::vector<std::byte> cluster(cluster_bytes);
  co_await layer.read_compressed(run.mapping, run.guest, cluster);
  const uint64_t at = layer.geometry().offset_in_cluster(run.guest.bytes);
  std::memcpy(into.data(), &cluster[at], into.size());
}

io::Task<std::vector<io::Extent>> Chain::extents(uint64_t offset, uint64_t length,
                                                 size_t count_max) {
  std::vector<io::Extent> extents;
  GuestOffset from{offset};
  const GuestOffset end{std::min(offset + length, size())};
  const io::SteadyTime patience_end = runtime_.clock.now() + kExtentsPatience;
  while (from < end) {
    const auto region = co_await map_.region_at(from);
    const GuestOffset region_end = std::min(end, map_.region_end(from));
    while (from < region_end) {
      Run run{.guest = from, .length = region_end.bytes - from.bytes};
      if (region) run = region->run_at(from, region_end);
      append(extents, as_extent(run));
      if (extents.size() > count_max) {
        extents.pop_back();
        co_return extents;
      }
      from.bytes += run.length;
    }
    if (region && runtime_.clock.now() >= patience_end) break;
  }
  co_return extents;
}

std::optional<std::string> Chain::suspect() const {
  for (const auto& layer : layers_) {
    const auto& record = layer->header().record;
    if (record && record->published() && !layer->header().sealed()) {
      return fmt::format("\"{}\": touched since publish (seal bit clear)", layer->name());
    }
  }
  return {};
}

namespace {

[[noreturn]] void refuse_write(const Chain& chain, std::string_view verb, uint64_t offset,
                               uint64_t length) {
  throw std::system_error(
      EPERM, std::generic_category(),
      fmt::format("{} {} @{}+{}: read-only", verb, chain.layer(0).name(), offset, length));
}

}  // namespace

io::Task<void> Chain::write(uint64_t offset, io::Buffer from) {
  refuse_write(*this, "write", offset, from.size());
  co_return;
}

io::Task<void> Chain::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode) {
  refuse_write(*this, "write zeroes", offset, length);
  co_return;
}

io::Task<void> Chain::discard(uint64_t offset, uint64_t length) {
  refuse_write(*this, "discard", offset, length);
  co_return;
}

io::Task<void> Chain::flush() { co_return; }

}  // namespace qcow
