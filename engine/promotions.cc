// SPDX-License-Identifier: Apache-2.0
#include "engine/promotions.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "engine/jobs/repository_watch.h"
#include "engine/values/layout.h"
#include "engine/values/refusal.h"
#include "io/call_on.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

constexpr size_t kUnderWayMax = 4;
constexpr const char* kPromoted = "the restore is being promoted";

std::string partial_of(const Promotion& promotion) { return promotion.path + ".partial"; }

/// Where each disk is copied to, below `path`.
std::vector<std::string> disk_paths(const Restore& restore, const std::string& path) {
  if (restore.disks.size() == 1) return {path};
  std::vector<std::string> paths;
  for (const RestoreDisk& disk : restore.disks) {
    paths.push_back(fmt::format("{}/{}{}.{}", path, kDiskPrefix, disk.disk_index,
                                to_text(restore.promotion->format)));
  }
  return paths;
}

DiskFormat format_by_ending(std::string_view path) {
  return path.ends_with(".raw") || path.ends_with(".img") ? DiskFormat::raw : DiskFormat::qcow2;
}

/// `path` with its directory's links followed. Throws promotion_path_invalid.
io::Task<std::string> usable_path(Core& core, std::string path) {
  const std::filesystem::path given(path);
  const auto invalid = [&path](std::string_view cause) {
    return refusals::promotion_path_invalid(path, cause);
  };
  if (!given.is_absolute() || path.find('\0') != path.npos)
    throw invalid("is not an absolute path");
  if (given.filename().empty() || given.lexically_normal() != given) {
    throw invalid("is not written as the path of a file");
  }
  const auto directory = co_await core.files().status(given.parent_path().string());
  if (!directory || directory->kind != io::FileKind::directory) {
    throw invalid("is not in an existing directory");
  }
  const std::string real = co_await core.files().resolve(given.parent_path().string());
  for (const Repository& repository : core.catalogue->repositories.list()) {
    const std::string inside = repository.directory + "/";
    if ((real + "/").starts_with(inside) || path.starts_with(inside)) {
      throw invalid(fmt::format("is in repository '{}'", repository.id));
    }
  }
  co_return fmt::format("{}/{}", real == "/" ? "" : real, given.filename().string());
}

uint64_t connections_of(const RestoreExports& exports, const Restore& restore) {
  uint64_t connections = 0;
  for (const ExportView& view : exports.views()) {
    for (const RestoreDisk& disk : restore.disks) {
      if (!disk.path.empty() && disk.export_name == view.name) connections += view.connections;
    }
  }
  return connections;
}

/// The restore as it is now, if it can be promoted.
Restore require_promotable(Core& core, const std::string& id) {
  const auto found = core.catalogue->restores.find(id);
  if (!found) throw refusals::restore_not_found(id);
  if (found->state != RestoreState::ready) {
    throw refusals::restore_is_not_ready(id, to_text(found->state));
  }
  if (found->promotion && found->promotion->state == PromotionState::copying) {
    throw refusals::promotion_is_running(fmt::format("'{}' is copied already", id));
  }
  if (core.promotions.size() >= kUnderWayMax) {
    throw refusals::promotion_is_running(fmt::format("{} others are", kUnderWayMax));
  }
  if (const uint64_t connections = connections_of(core.restores, *found)) {
    throw refusals::restore_is_in_use(id, connections);
  }
  return *found;
}

io::Task<void> remove_partial(io::FileSystem& files, const Restore& restore) {
  const std::string partial = partial_of(*restore.promotion);
  const auto there = co_await files.status(partial, false);
  if (!there) co_return;
  for (const std::string& path : disk_paths(restore, partial)) {
    const auto file = co_await files.status(path, false);
    if (file) co_await files.remove(path);
  }
  if (there->kind == io::FileKind::directory) {
    co_await files.sync_directory(partial);
    co_await files.remove_directory(partial);
  }
  co_await files.sync_directory(io::parent_path(partial));
}

/// By one rename, so that all disks are there or none.
io::Task<void> give_name(io::FileSystem& files, const Restore& restore) {
  const std::string partial = partial_of(*restore.promotion);
  if (restore.disks.size() > 1) co_await files.sync_directory(partial);
  co_await files.rename(partial, restore.promotion->path, false);
  UNLESS_PLANTED(promotion_name_unsynced)
  co_await files.sync_directory(io::parent_path(partial));
}

io::Task<void> copy_disks(Core& core, const Restore& restore,
                          std::shared_ptr<PromotionUnderWay> under_way) {
  const std::string partial = partial_of(*restore.promotion);
  if (restore.disks.size() > 1) co_await core.files().make_directories(partial);
  const std::vector<std::string> targets = disk_paths(restore, partial);
  for (size_t at = 0; at < restore.disks.size(); ++at) {
    const RestoreDisk& disk = restore.disks[at];
    const auto point = core.catalogue->points.find(disk.image_id);
    if (!point) throw std::runtime_error(fmt::format("image {} is not there", disk.image_id));
    if (!disk.path.empty()) co_await core.restores.close_named(disk.export_name, kPromoted);
    const std::string source = disk.path.empty() ? point->image_path : disk.path;
    const auto repository = core.catalogue->repositories.find(restore.repository_id);
    const bool is_inside = repository && source.starts_with(repository->directory + "/");
    const std::string root = is_inside ? repository->directory : "";
    const io::Runtime& data = core.restores.least_loaded();
    const auto there = [&] {
      return copy_into_file(data, source, root, targets[at], restore.promotion->format,
                            core.options.verify_restores, under_way);
    };
    co_await io::call_on(data.executor, core.parts.home.executor, there);
  }
  core.parts.reached("promotion_copied");
  co_await give_name(core.files(), restore);
  core.parts.reached("promotion_named");
}

void record_end(Core& core, Promotion promotion, PromotionState state, std::string error) {
  promotion.state = state;
  promotion.error = std::move(error);
  promotion.ended_at = core.now();
  core.catalogue->restores.put_promotion(promotion);
  io::log(state == PromotionState::failed ? io::LogLevel::error : io::LogLevel::info,
          "promotion of restore {} to {}: {}{}{}", promotion.restore_id, promotion.path,
          to_text(state), promotion.error.empty() ? "" : ": ", promotion.error);
}

/// What it has copied goes when it has not become whole.
io::Task<void> end_copy(Core& core, Restore restore, const PromotionUnderWay& under_way,
                        io::Outcome<> copied) {
  Promotion& promotion = *restore.promotion;
  promotion.copied_bytes = copied.failed() ? under_way.copied_bytes.load() : promotion.total_bytes;
  if (!copied.failed()) {
    record_end(core, promotion, PromotionState::completed, "");
    co_return;
  }
  co_await remove_partial(core.files(), restore);
  if (core.shutting_down) {
    record_end(core, promotion, PromotionState::failed, "varve was shut down; promote again");
  } else if (under_way.cancelled) {
    record_end(core, promotion, PromotionState::cancelled, "");
  } else {
    record_end(core, promotion, PromotionState::failed, text_of(copied.failure()));
  }
}

io::Task<void> run_promotion(Core& core, Restore restore,
                             std::shared_ptr<PromotionUnderWay> under_way) {
  io::Outcome<> copied = co_await io::attempt([&] { return copy_disks(core, restore, under_way); });
  io::Outcome<> ended =
      co_await io::attempt([&] { return end_copy(core, restore, *under_way, std::move(copied)); });
  if (ended.failed()) {  // the row says copying: the watch takes it up
    io::log(io::LogLevel::error, "promotion of restore {} could not be ended: {}", restore.id,
            text_of(ended.failure()));
  }
  core.promotions.erase(restore.id);
  under_way->ended.set();
}

}  // namespace

io::Task<void> promote_restore(Core& core, std::string restore_id, NewPromotion request) {
  if (core.shutting_down) throw refusals::shutting_down();
  const auto known = core.catalogue->restores.find(restore_id);
  if (!known) throw refusals::restore_not_found(restore_id);
  const auto repository = core.catalogue->repositories.find(known->repository_id);
  if (repository) co_await require_available(core, *repository);
  const std::string path = co_await usable_path(core, request.path);
  for (const std::string& taken : {path, path + ".partial"}) {
    if (co_await core.files().status(taken, false)) throw refusals::promotion_path_exists(taken);
  }
  // From here to the row nothing waits, so that two callers cannot both come through.
  Restore restore = require_promotable(core, restore_id);
  for (const Restore& other : core.catalogue->restores.list()) {
    const bool is_copying = other.promotion && other.promotion->state == PromotionState::copying;
    if (is_copying && other.promotion->path == path) throw refusals::promotion_path_exists(path);
  }
  Promotion promotion{.restore_id = restore.id, .path = path, .started_at = core.now()};
  promotion.format = request.format.value_or(format_by_ending(path));
  for (const RestoreDisk& disk : restore.disks) {
    const auto point = core.catalogue->points.find(disk.image_id);
    if (point) promotion.total_bytes += point->capacity_bytes;
  }
  core.catalogue->restores.put_promotion(promotion);
  core.parts.reached("promotion_inserted");
  restore.promotion = std::move(promotion);
  auto under_way = std::make_shared<PromotionUnderWay>(core.parts.home.executor);
  core.promotions.emplace(restore.id, under_way);
  core.background.spawn(run_promotion(core, std::move(restore), std::move(under_way)));
}

io::Task<void> cancel_promotion(Core& core, std::string restore_id) {
  if (!core.catalogue->restores.find(restore_id)) throw refusals::restore_not_found(restore_id);
  const auto found = core.promotions.find(restore_id);
  if (found == core.promotions.end()) throw refusals::promotion_is_not_running(restore_id);
  const auto under_way = found->second;
  under_way->cancelled = true;
  co_await under_way->ended.wait();
}

io::Task<void> end_promotion(Core& core, Restore restore) {
  while (core.promotions.contains(restore.id)) {
    const auto under_way = core.promotions.at(restore.id);
    under_way->cancelled = true;
    co_await under_way->ended.wait();
  }
  auto now = core.catalogue->restores.find(restore.id);
  if (!now || !now->promotion || now->promotion->state != PromotionState::copying) co_return;
  Promotion& promotion = *now->promotion;
  const auto named = co_await core.files().status(promotion.path, false);
  const auto partial = co_await core.files().status(partial_of(promotion), false);
  // The name comes last: where it is, the copy is whole. A kill may leave both names of one file.
  const bool is_one_file =
      named && partial && named->inode == partial->inode && named->device == partial->device;
  if (named && (!partial || is_one_file)) {
    if (partial) co_await give_name(core.files(), *now);
    promotion.copied_bytes = promotion.total_bytes;
    record_end(core, promotion, PromotionState::completed, "");
    co_return;
  }
  co_await remove_partial(core.files(), *now);
  record_end(core, promotion, PromotionState::failed, "varve ended meanwhile; promote again");
}

}  // namespace engine
