// SPDX-License-Identifier: Apache-2.0
#include "engine/wanted.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "engine/care/lasting_damage.h"
#include "engine/jobs/repository_watch.h"
#include "engine/values/refusal.h"
#include "io/call_on.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr uint64_t kClusterBytes = HeldContent::kClusterBytes;
/// Of one disk in one answer, 4 GiB: what is healed makes room for the next answer.
constexpr uint64_t kClustersMax = 1 << 16;
/// Of one reader. Earlier versions remembered the first 100, whoever reads them.
constexpr size_t kRangesKept = 128, kRangesKeptFormerly = 100;

/// By either reader.
std::vector<ClusterRange> clusters_of(const ImageVerification& found) {
  std::vector<ClusterRange> clusters;
  const auto add = [&](const std::vector<Damage>& ranges) {
    for (const Damage& range : ranges) {
      clusters.push_back({range.offset / kClusterBytes,
                          (range.offset + range.length + kClusterBytes - 1) / kClusterBytes});
    }
  };
  add(found.damaged);
  if (found.second_reader) add(found.second_reader->damaged);
  return joined(std::move(clusters));
}

/// Not all ranges are remembered.
uint64_t unnamed_bytes_of(const ImageVerification& found,
                          const std::vector<ClusterRange>& clusters) {
  uint64_t named = 0;
  for (const ClusterRange& range : clusters) named += (range.end - range.first) * kClusterBytes;
  return found.damaged_bytes - std::min(found.damaged_bytes, named);
}

/// Whether all that the newest point reads of the damage is named. What else is wrong with an image
/// has no place, and nothing heals it.
bool is_named(const ImageVerification& found, uint64_t unnamed_bytes) {
  if (!found.problem.empty()) return false;
  const size_t by_second = found.second_reader ? found.second_reader->damaged.size() : 0;
  return unnamed_bytes == 0 || std::max(found.damaged.size(), by_second) > kRangesKeptFormerly;
}

/// A chain with what the last verifications of its images say.
struct Proven {
  std::vector<ProvenImage> images;
  std::vector<std::optional<DamagedImage>> damaged;  ///< as many; none: sound, or never proven
  std::vector<bool> is_named;                        ///< as many
};

Proven proven(Catalogue& catalogue, const std::vector<Point>& points) {
  Proven proven;
  for (const Point& point : points) {
    proven.images.push_back({.path = point.image_path});
    proven.damaged.emplace_back();
    proven.is_named.push_back(true);
    const auto last = catalogue.verifications.find(point.image_id);
    if (!last || last->result != VerificationResult::damaged) continue;
    std::vector<ClusterRange>& clusters = proven.images.back().damaged;
    clusters = clusters_of(*last);
    proven.damaged.back() = DamagedImage{.backup_id = point.job_id,
                                         .disk_index = point.disk_index,
                                         .verified_at = last->verified_at,
                                         .damaged_bytes = last->damaged_bytes,
                                         .unnamed_bytes = unnamed_bytes_of(*last, clusters),
                                         .problem = last->problem};
    proven.is_named.back() = is_named(*last, proven.damaged.back()->unnamed_bytes);
  }
  return proven;
}

io::Task<LastingDamage> search(Core& core, std::vector<ProvenImage> images, uint64_t clusters_max) {
  const io::Runtime data = core.least_loaded();
  const auto there = [&] { return lasting_damage(data, images, clusters_max); };
  co_return co_await io::call_on(data.executor, core.parts.home.executor, there);
}

WantedRange range_of(const LostRun& lost, uint64_t size_bytes) {
  WantedRange range;
  range.offset = lost.clusters.first * kClusterBytes;
  range.length = std::min(lost.clusters.end * kClusterBytes, size_bytes) - range.offset;
  range.zero = lost.zero;
  for (const qcow::Sum& sum : lost.sums) range.sums.push_back(qcow::sum_text(sum));
  return range;
}

io::Task<void> add_disk(Core& core, WantedView& view, std::vector<Point> points) {
  const Point& newest = points.back();
  WantedDisk disk{.disk_index = newest.disk_index,
                  .backup_id = newest.job_id,
                  .change_id = newest.change_id,
                  .size_bytes = newest.capacity_bytes,
                  .cluster_bytes = kClusterBytes};
  Proven proof = proven(*core.catalogue, points);
  const auto is_damaged = [](const auto& image) { return image.has_value(); };
  if (std::ranges::any_of(proof.damaged, is_damaged)) {
    const LastingDamage found = co_await search(core, proof.images, kClustersMax);
    disk.complete = !found.truncated;
    for (const LostRun& lost : found.lost) {
      const uint64_t offset = lost.clusters.first * kClusterBytes;
      if (offset < disk.size_bytes) disk.ranges.push_back(range_of(lost, disk.size_bytes));
    }
    for (size_t at = 0; at < points.size(); ++at) {
      if (!proof.damaged[at]) continue;
      DamagedImage image = *proof.damaged[at];
      const size_t healed_at = proof.is_named[at] ? found.healed_at[at] : points.size();
      image.newest_reads_it = healed_at == points.size();
      disk.complete = disk.complete && proof.is_named[at];
      const size_t end = image.unnamed_bytes == 0 ? healed_at : points.size();
      for (size_t reader = at; reader < std::min(end, points.size() - 1); ++reader) {
        image.damaged_backups.push_back(points[reader].job_id);
      }
      view.images.push_back(std::move(image));
    }
  }
  view.disks.push_back(std::move(disk));
}

Vm require_vm(Catalogue& catalogue, const std::string& context_id_or_name) {
  auto vm = catalogue.vms.find_context(context_id_or_name);
  if (!vm) vm = catalogue.vms.find(context_id_or_name);
  if (!vm) throw refusals::vm_context_not_found(context_id_or_name);
  return *vm;
}

/// An image and those on it; the first backup is the image's own.
struct Upwards {
  std::vector<ProvenImage> images;
  std::vector<std::string> backups;
};

Upwards upwards_from(Catalogue& catalogue, const Point& point, std::vector<ClusterRange> damaged) {
  Upwards found;
  const auto chain = catalogue.points.chain(point.context_id, point.repository_id, point.disk_index,
                                            point.place.generation);
  if (!chain) return found;
  for (const Point& one : chain->points) {
    if (one.place.position < point.place.position) continue;
    found.images.push_back({.path = one.image_path});
    found.backups.push_back(one.job_id);
  }
  if (!found.images.empty()) found.images.front().damaged = std::move(damaged);
  return found;
}

/// What could not be found out is in the log, and then all of it counts as read by everybody.
io::Task<std::optional<LastingDamage>> try_search(Core& core, Upwards from) {
  if (from.images.empty()) co_return std::nullopt;
  const std::string path = from.images.front().path;
  try {
    co_return co_await search(core, std::move(from.images), 0);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "who reads the damage of {} is not known exactly: {}", path,
            failure.what());
  }
  co_return std::nullopt;
}

/// Those first that meet `preferred`; in the order of the disk again.
void keep_first(std::vector<Damage>& ranges, const std::vector<ClusterRange>& preferred) {
  if (ranges.size() <= kRangesKept) return;
  const auto is_preferred = [&](const Damage& range) {
    const ClusterRange clusters{range.offset / kClusterBytes,
                                (range.offset + range.length) / kClusterBytes};
    const auto next = std::ranges::upper_bound(preferred, clusters.first, {}, &ClusterRange::end);
    return next != preferred.end() && next->first < clusters.end;
  };
  std::ranges::stable_partition(ranges, is_preferred);
  ranges.resize(kRangesKept);
  std::ranges::sort(ranges, {}, &Damage::offset);
}

}  // namespace

io::Task<WantedView> wanted(Core& core, WantedQuery query) {
  const Vm vm = require_vm(*core.catalogue, query.vm);
  WantedView view{
      .context_id = vm.context_id, .vm_name = vm.vm_name, .repository_id = query.repository_id};
  if (view.repository_id.empty()) {
    view.repository_id = core.catalogue->points.newest_repository(vm.context_id);
    if (view.repository_id.empty()) co_return view;  // there is no point yet
  }
  const auto repository = core.catalogue->repositories.find(view.repository_id);
  if (!repository) throw refusals::unknown_repository(view.repository_id);
  co_await require_available(core, *repository);
  for (const VmDisk& disk : vm.disks) {
    if (disk.removed) continue;
    auto chain =
        core.catalogue->points.chain(vm.context_id, view.repository_id, disk.index, std::nullopt);
    if (!chain || chain->points.empty()) continue;
    co_await add_disk(core, view, std::move(chain->points));
  }
  co_return view;
}

io::Task<std::vector<std::string>> readers_of_damage(Core& core, Point point,
                                                     ImageVerification found) {
  std::vector<std::string> all = core.catalogue->jobs.dependents(point.job_id);
  all.push_back(point.job_id);
  const std::vector<ClusterRange> clusters = clusters_of(found);
  if (!found.problem.empty() || unnamed_bytes_of(found, clusters) > 0) co_return all;
  Upwards from = upwards_from(*core.catalogue, point, clusters);
  std::vector<std::string> readers = from.backups;
  const std::optional<LastingDamage> damage = co_await try_search(core, std::move(from));
  if (!damage) co_return all;
  readers.resize(damage->healed_at.front());
  std::ranges::reverse(readers);
  co_return readers;
}

io::Task<ImageVerification> with_first_ranges(Core& core, Point point, ImageVerification found) {
  std::vector<Damage>* const by_second =
      found.second_reader ? &found.second_reader->damaged : nullptr;
  const size_t most = std::max(found.damaged.size(), by_second != nullptr ? by_second->size() : 0);
  if (most <= kRangesKept) co_return found;
  const std::vector<ClusterRange> clusters = clusters_of(found);
  const bool is_all = unnamed_bytes_of(found, clusters) == 0;
  Upwards from = upwards_from(*core.catalogue, point, clusters);
  const std::optional<LastingDamage> damage = co_await try_search(core, std::move(from));
  const std::vector<ClusterRange> read = damage ? damage->newest : clusters;
  keep_first(found.damaged, read);
  if (by_second != nullptr) keep_first(*by_second, read);
  if (is_all && without(read, clusters_of(found)).empty()) co_return found;
  found.problem += fmt::format("{}more ranges that the newest point reads are damaged than {}",
                               found.problem.empty() ? "" : "; ", kRangesKept);
  co_return found;
}

}  // namespace engine
