// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/manifest.h"

#include <fmt/format.h>

#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"
#include "qcow/check/check_content.h"
#include "qcow/format/entries.h"

namespace crash {

namespace {

qcow::ContentResult compare(World& world, const std::string& image_path,
                            const std::string& sums_path) {
  const auto work = [&]() -> io::Task<qcow::ContentResult> {
    const auto image = co_await qcow::Layer::open(world.runtime(), image_path, {});
    const auto manifest = co_await qcow::SumsReader::open(world.files, sums_path);
    qcow::ContentOptions options;
    co_return co_await qcow::check_content(world.runtime(), *image, *manifest, options);
  };
  return world.scheduler.run(work());
}

}  // namespace

std::string manifest_path(std::string_view image_path) { return std::string(image_path) + ".sums"; }

std::vector<StoredCluster> stored_clusters(World& world, const std::string& image_path) {
  const auto work = [&]() -> io::Task<std::vector<StoredCluster>> {
    std::vector<StoredCluster> stored;
    const auto image = co_await qcow::Layer::open(world.runtime(), image_path, {});
    const qcow::Geometry& geometry = image->geometry();
    const uint64_t tables = geometry.l1_entries();
    for (uint64_t l1_index = 0; l1_index < tables; ++l1_index) {
      const auto entry =
          qcow::L1Entry::decode(image->raw_l1_entry(l1_index), geometry.cluster_bits);
      if (!entry || !entry->table) continue;
      std::vector<uint64_t> raw(geometry.l2_entries());
      co_await image->read_l2_entries(entry->table, 0, raw);
      for (size_t i = 0; i < raw.size(); ++i) {
        const auto mapping =
            qcow::decode_l2_entry(raw[i], geometry.cluster_bits, image->header().version);
        if (!mapping || mapping->kind != qcow::MappingKind::data) continue;
        stored.push_back({geometry.table_start(l1_index) + i, mapping->host});
      }
    }
    co_return stored;
  };
  return world.scheduler.run(work());
}

bool is_published(World& world, const std::string& image_path) {
  const auto work = [&]() -> io::Task<bool> {
    const auto file = co_await world.files.open(image_path, io::OpenMode::read_only);
    const qcow::Header header = co_await qcow::read_header(*file, "image");
    co_return header.sealed() || (header.record && header.record->published());
  };
  return world.scheduler.run(work());
}

void spoil(World& world, const std::string& path, uint64_t at) {
  const auto work = [&]() -> io::Task<void> {
    const auto file = co_await world.files.open(path, io::OpenMode::read_write);
    Bytes sector(kSector);
    const uint64_t begin = sector_down(at);
    const auto bytes =
        std::span(sector).first(std::min<uint64_t>(kSector, co_await file->size() - begin));
    co_await file->read(begin, bytes);
    bytes[at - begin] ^= std::byte{0xff};
    co_await file->write(begin, bytes);
  };
  world.scheduler.run(work());
}

std::optional<std::string> judge_manifest(World& world, const std::string& image_path,
                                          const std::string& sums_path, Rng& rng) {
  if (world.disk.find(sums_path) == nullptr) return fmt::format("LOST: {} is gone", sums_path);
  const qcow::ContentResult whole = compare(world, image_path, sums_path);
  if (whole.damaged_bytes > 0) {
    const qcow::DamagedRange& first = whole.damaged.front();
    return fmt::format("BAD: {} does not fit its manifest: guest {}+{} {}", image_path,
                       first.offset, first.length, first.what);
  }
  const std::vector<StoredCluster> stored = stored_clusters(world, image_path);
  if (stored.empty()) return std::nullopt;
  const uint64_t cluster_bytes = whole.data_bytes / stored.size();
  const StoredCluster& victim = stored[rng.below(stored.size())];
  const uint64_t at = victim.host.bytes + rng.below(cluster_bytes);
  spoil(world, image_path, at);
  const qcow::ContentResult found = compare(world, image_path, sums_path);
  spoil(world, image_path, at);
  const bool is_named = found.damaged.size() == 1 && found.damaged_bytes == cluster_bytes &&
                        found.damaged.front().offset == victim.guest.index * cluster_bytes;
  if (is_named) return std::nullopt;
  return fmt::format("BAD: damage to guest cluster {} of {} is not found", victim.guest.index,
                     image_path);
}

}  // namespace crash
