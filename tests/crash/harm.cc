// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/harm.h"

#include <algorithm>

#include "qcow/format/sums.h"
#include "tests/crash/manifest.h"

namespace crash {

namespace {

constexpr uint32_t kClusterBitsAt = 20;

/// A file at rest, changed as bytes.
void put(World& world, const std::string& path, Bytes bytes) {
  const auto work = [&]() -> io::Task<void> {
    const auto file = co_await world.files.open(path, io::OpenMode::read_write);
    co_await file->truncate(bytes.size());
    co_await file->write(0, bytes);
  };
  world.scheduler.run(work());
}

Bytes content_of(World& world, const std::string& path) {
  return world.disk.content(world.disk.find(path)->file);
}

void harm_clusters(World& world, const std::string& path, bool swaps, Rng& rng) {
  Bytes image = content_of(world, path);
  const uint64_t cluster_bytes = uint64_t{1} << static_cast<uint32_t>(image[kClusterBitsAt + 3]);
  const std::vector<StoredCluster> stored = stored_clusters(world, path);
  const auto at = [&](size_t i) {
    return image.begin() + static_cast<ptrdiff_t>(stored[i].host.bytes);
  };
  for (size_t i = 0; i + 1 < stored.size(); i += 2) {
    if (rng.one_in(3)) continue;
    if (swaps) {
      std::swap_ranges(at(i), at(i) + static_cast<ptrdiff_t>(cluster_bytes), at(i + 1));
    } else {
      *(at(i) + static_cast<ptrdiff_t>(rng.below(cluster_bytes))) ^= std::byte{0x40};
    }
  }
  put(world, path, std::move(image));
}

/// Every checksum becomes that of the next stored cluster of its block.
void tell_lies(World& world, const std::string& path) {
  Bytes file = content_of(world, path);
  const auto all = std::span<const std::byte>(file);
  const auto footer =
      qcow::SumsFooter::decode(all.last(qcow::SumsFooter::kBytes), file.size(), path);
  const auto index = qcow::decode_sum_index(
      all.subspan(footer.index_offset, footer.block_count * qcow::SumIndexEntry::kBytes),
      footer.index_offset, path);
  const auto clusters = uint32_t{1} << (footer.cluster_bits - 3);
  for (size_t i = 0; i < index.size(); ++i) {
    const uint64_t end = i + 1 < index.size() ? index[i + 1].offset : footer.index_offset;
    qcow::SumBlock block = qcow::decode_sum_block(
        all.subspan(index[i].offset, end - index[i].offset), index[i].l1_index, clusters, path);
    if (block.sums.size() > 1)
      std::rotate(block.sums.begin(), block.sums.begin() + 1, block.sums.end());
    const Bytes bytes = qcow::encode(block);
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(index[i].offset));
  }
  put(world, path, std::move(file));
}

}  // namespace

void harm(World& world, const std::string& image_path, const std::string& other_sums, Harm harm,
          Rng& rng) {
  const std::string sums = manifest_path(image_path);
  switch (harm) {
    case Harm::none:
      return;
    case Harm::rotten:
    case Harm::swapped:
      return harm_clusters(world, image_path, harm == Harm::swapped, rng);
    case Harm::lying_manifest:
      return tell_lies(world, sums);
    case Harm::damaged_manifest:
      return spoil(world, sums, rng.below(content_of(world, sums).size()));
    case Harm::foreign_manifest:
      return put(world, sums, content_of(world, other_sums));
    case Harm::no_manifest:
      return world.scheduler.run(world.files.remove(sums));
  }
}

}  // namespace crash
