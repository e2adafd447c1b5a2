// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/chain_sums.h"

#include <algorithm>
#include <exception>

#include "io/log.h"
#include "qcow/format/format_error.h"

namespace qcow {

ChainSums::ChainSums(io::Runtime runtime, Chain& chain, PathOf path_of)
    : runtime_(runtime),
      chain_(chain),
      path_of_(std::move(path_of)),
      geometry_(chain.layer(0).geometry()),
      manifests_(chain.layer_count()),
      loading_(runtime.executor, 1) {}

io::Task<std::vector<std::optional<Sum>>> ChainSums::sums_of(GuestCluster first, uint64_t count) {
  std::vector<std::optional<Sum>> sums(count);
  const GuestOffset from = geometry_.start_of(first);
  const GuestOffset end = std::min(geometry_.start_of(first + count), GuestOffset{chain_.size()});
  if (from >= end) co_return sums;
  const std::vector<Run> runs = co_await chain_.runs(from, end);
  for (const Run& run : runs) {
    if (run.kind != MappingKind::data && run.kind != MappingKind::compressed) continue;
    if (chain_.layer(run.layer).geometry().cluster_bits != geometry_.cluster_bits) continue;
    const GuestCluster run_end{geometry_.clusters_for(run.guest.bytes + run.length)};
    std::shared_ptr<const Block> held;
    for (GuestCluster cluster = geometry_.cluster_of(run.guest); cluster < run_end; ++cluster) {
      const uint64_t l1_index = geometry_.l1_index(cluster);
      if (!held || held->l1_index != l1_index) held = co_await block(run.layer, l1_index);
      const uint64_t index = geometry_.l2_index(cluster);
      if (index < held->sums.size()) sums[cluster - first] = held->sums[index];
    }
  }
  co_return sums;
}

std::shared_ptr<const ChainSums::Block> ChainSums::find(size_t layer, uint64_t l1_index) {
  const auto found = std::ranges::find_if(blocks_, [&](const auto& block) {
    return block->layer == layer && block->l1_index == l1_index;
  });
  if (found == blocks_.end()) return nullptr;
  blocks_.splice(blocks_.begin(), blocks_, found);
  return blocks_.front();
}

io::Task<std::shared_ptr<const ChainSums::Block>> ChainSums::block(size_t layer,
                                                                   uint64_t l1_index) {
  if (auto found = find(layer, l1_index)) co_return found;
  const io::Grant turn = co_await io::Grant::acquire(loading_, 1);
  if (auto found = find(layer, l1_index)) co_return found;
  std::shared_ptr<const Block> loaded = co_await load(layer, l1_index);
  blocks_.push_front(loaded);
  if (blocks_.size() > kBlocksMax) blocks_.pop_back();
  co_return loaded;
}

io::Task<std::shared_ptr<const ChainSums::Block>> ChainSums::load(size_t layer, uint64_t l1_index) {
  auto loaded = std::make_shared<Block>(Block{.layer = layer, .l1_index = l1_index});
  try {
    SumsReader* const reader = co_await manifest_of(layer);
    if (reader == nullptr) co_return loaded;
    const std::optional<SumBlock> block = co_await reader->block(l1_index);
    if (!block) co_return loaded;
    loaded->sums.resize(geometry_.l2_entries());
    auto sum = block->sums.begin();
    for (const SumRun& run : block->runs) {
      if (run.kind != SumKind::data) continue;
      std::copy_n(sum, run.count, loaded->sums.begin() + run.first);
      sum += run.count;
    }
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "qcow: {}; the manifest is not used", failure.what());
    manifests_[layer].reader.reset();
    loaded->sums.clear();
  }
  co_return loaded;
}

io::Task<SumsReader*> ChainSums::manifest_of(size_t layer) {
  Manifest& manifest = manifests_[layer];
  if (manifest.opened) co_return manifest.reader.get();
  manifest.opened = true;
  const Layer& image = chain_.layer(layer);
  const auto& record = image.header().record;
  if (!record) co_return nullptr;
  std::unique_ptr<SumsReader> reader;
  try {
    reader = co_await SumsReader::open(runtime_.files, path_of_(image.path()));
  } catch (const std::system_error& failure) {
    if (failure.code().value() != ENOENT) throw;
    co_return nullptr;  // a point of an earlier version
  }
  const SumsFooter& footer = reader->footer();
  if (footer.image_uuid != record->image_uuid || footer.cluster_bits != geometry_.cluster_bits) {
    throw FormatError(reader->name(), "is not the manifest of " + image.name());
  }
  manifest.reader = std::move(reader);
  co_return manifest.reader.get();
}

}  // namespace qcow
