// SPDX-License-Identifier: Apache-2.0
#include "engine/restores.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/job_view.h"
#include "engine/jobs/repository_watch.h"
#include "engine/promotions.h"
#include "engine/values/export_uri.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/point_name.h"
#include "engine/values/refusal.h"
#include "io/call_on.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/planted_bug.h"
#include "qcow/chain/chain.h"
#include "qcow/format/uuid.h"
#include "qcow/image/create.h"

namespace engine {
namespace {

constexpr const char* kDropped = "the restore has been dropped";
constexpr io::Duration kPauseAfterFailure = std::chrono::minutes(1);

/// The points that are asked for.
std::vector<Point> require_points(Catalogue& catalogue, const NewRestore& request) {
  const Job job = require_backup(catalogue, request.backup_id);
  if (job.state != JobState::completed || job.deleting) {
    throw refusals::backup_is_not_completed(job.id, to_text(job.state));
  }
  std::vector<Point> points = catalogue.points.of_job(job.id);
  if (points.empty()) throw refusals::backup_is_not_completed(job.id, "without a point");
  if (!request.disk_id) return points;
  std::erase_if(points, [&](const Point& point) { return point.disk_index != *request.disk_id; });
  if (points.empty()) {
    throw refusals::job_not_found(job.id, fmt::format("the job has no disk {}", *request.disk_id));
  }
  return points;
}

Restore plan_restore(Core& core, const NewRestore& request, const std::vector<Point>& points) {
  const Point& first = points.front();
  Restore restore;
  restore.id =
      restore_name(safe_name(first.vm_name), core.now(), name_secret(core.parts.home.random));
  restore.job_id = first.job_id;
  restore.vm_name = first.vm_name;
  restore.context_id = first.context_id;
  restore.repository_id = first.repository_id;
  restore.mode = request.mode;
  restore.created_at = core.now();
  if (request.expires_in_seconds) {
    restore.expires_at = core.now() + std::chrono::seconds(*request.expires_in_seconds);
  }
  restore.size_limit_bytes = request.size_limit_bytes;
  const bool writable = request.mode == RestoreMode::writable;
  for (const Point& point : points) {
    RestoreDisk disk{restore.id, point.disk_index, point.image_id, point_export_name(point), ""};
    if (writable) {
      disk.export_name = fmt::format("{}/disk-{}", restore.id, point.disk_index);
      disk.path = overlay_path(point.image_path, restore.id, point.disk_index);
    }
    restore.disks.push_back(std::move(disk));
  }
  return restore;
}

/// An empty image on the point, durable. On a data thread.
io::Task<void> make_overlay(io::Runtime data, Point point, std::string path,
                            std::string repository_directory) {
  qcow::ChainOptions options;
  if (point.image_path.starts_with(repository_directory + "/")) {
    options.repository_root = std::move(repository_directory);
  }
  const auto chain = co_await qcow::Chain::open(data, point.image_path, options);
  qcow::CreateOptions create;
  create.virtual_size = chain->size();
  create.image_uuid = qcow::make_uuid(data);
  create.parent = qcow::NewParent{.name = qcow::image_name_of(point.image_path)};
  if (const auto& record = chain->layer(0).header().record) {
    create.parent->uuid = record->image_uuid;
    create.parent->manifest_hash = record->manifest_hash;
  }
  co_await qcow::create(data, path, create);
}

io::Task<void> make_overlays(Core& core, const Restore& restore, std::vector<Point> points,
                             std::string directory) {
  for (size_t at = 0; at < points.size(); ++at) {
    const std::string& path = restore.disks[at].path;
    if (path.empty()) continue;
    const io::Runtime& data = core.restores.least_loaded();
    const auto there = [&] { return make_overlay(data, points[at], path, directory); };
    co_await io::call_on(data.executor, core.parts.home.executor, there);
  }
}

/// What may be there of a restore goes, and then its row. The caller has the context's turn.
io::Task<void> remove_restore(Core& core, Restore restore) {
  PLANTED_BUG(restore_row_first, core.catalogue->restores.erase(restore.id))
  for (const RestoreDisk& disk : restore.disks) {
    if (disk.path.empty()) continue;
    co_await core.restores.close_named(disk.export_name, kDropped);
    const auto there = co_await core.files().status(disk.path, false);
    if (!there) continue;
    co_await core.files().remove(disk.path);
    co_await core.files().sync_directory(io::parent_path(disk.path));
  }
  core.catalogue->restores.erase(restore.id);
  io::log(io::LogLevel::info, {.job = restore.job_id}, "restore {} of backup {} dropped",
          restore.id, restore.job_id);
}

/// `only_if_left_over`: not when it has become ready while the turn was waited for.
io::Task<void> drop(Core& core, Restore restore, bool only_if_left_over) {
  const io::Grant turn = co_await core.turns.take(restore.repository_id, restore.context_id);
  const auto now = core.catalogue->restores.find(restore.id);
  if (!now || (only_if_left_over && now->state == RestoreState::ready)) co_return;
  core.catalogue->restores.set_state(restore.id, RestoreState::dropping);
  core.parts.reached("restore_dropping");
  co_await end_promotion(core, *now);
  co_await remove_restore(core, *now);
}

io::Task<RestoreView> view_of(Core& core, Restore restore) {
  RestoreView view{std::move(restore), {}};
  const auto under_way = core.promotions.find(view.restore.id);
  if (under_way != core.promotions.end() && view.restore.promotion) {
    view.restore.promotion->copied_bytes = under_way->second->copied_bytes;
  }
  for (const RestoreDisk& disk : view.restore.disks) {
    RestoreView::Disk shown{export_uris(core.options, disk.export_name), 0};
    // One that does not answer would hold up the whole list.
    const bool is_away = !core.availability.cause(view.restore.repository_id).empty();
    if (!disk.path.empty() && !is_away) {
      const auto file = co_await core.files().status(disk.path, false);
      if (file) shown.written_bytes = file->allocated_bytes;
    }
    view.disks.push_back(std::move(shown));
  }
  co_return view;
}

bool was_being_promoted(const Restore& restore) {
  return restore.promotion && restore.promotion->state == PromotionState::copying;
}

bool is_expired(const Restore& restore, Time now) {
  return restore.expires_at && *restore.expires_at <= now;
}

}  // namespace

io::Task<RestoreView> create_restore(Core& core, NewRestore request) {
  if (core.shutting_down) throw refusals::shutting_down();
  const Job job = require_backup(*core.catalogue, request.backup_id);
  const auto repository = core.catalogue->repositories.find(job.repository_id);
  if (repository) co_await require_available(core, *repository);
  // Nobody removes the points between the look and the row.
  const io::Grant turn = co_await core.turns.take(job.repository_id, job.context_id);
  std::vector<Point> points = require_points(*core.catalogue, request);
  const Restore restore = plan_restore(core, request, points);
  core.catalogue->restores.insert(restore);
  core.parts.reached("restore_inserted");
  const auto make = [&] {
    return make_overlays(core, restore, points, repository ? repository->directory : "");
  };
  io::Outcome<> made = co_await io::attempt(make);
  if (made.failed()) co_await remove_restore(core, restore);
  made.take();
  core.parts.reached("restore_made");
  core.catalogue->restores.set_state(restore.id, RestoreState::ready);
  io::log(io::LogLevel::info, {.job = restore.job_id}, "restore {} of backup {}: {}", restore.id,
          restore.job_id, to_text(restore.mode));
  co_return co_await view_of(core, core.catalogue->restores.find(restore.id).value());
}

io::Task<std::vector<RestoreView>> restore_views(Core& core) {
  std::vector<RestoreView> views;
  for (Restore& restore : core.catalogue->restores.list()) {
    views.push_back(co_await view_of(core, std::move(restore)));
  }
  co_return views;
}

io::Task<RestoreView> restore_view(Core& core, std::string id) {
  auto found = core.catalogue->restores.find(id);
  if (!found) throw refusals::restore_not_found(id);
  co_return co_await view_of(core, std::move(*found));
}

io::Task<void> drop_restore(Core& core, std::string id) {
  auto found = core.catalogue->restores.find(id);
  if (!found) throw refusals::restore_not_found(id);
  co_await drop(core, std::move(*found), false);
}

io::Task<void> look_after_restores(Core& core, RestorePauses& pauses) {
  const std::vector<Restore> restores = core.catalogue->restores.list();
  for (const Restore& restore : restores) {
    // One that is being made has its context's turn: drop() waits for it and looks again.
    const bool is_left_over = restore.state != RestoreState::ready;
    const bool is_due = is_left_over || is_expired(restore, core.now());
    if (core.promotions.contains(restore.id)) continue;  // it does not expire meanwhile
    if (!is_due && !was_being_promoted(restore)) continue;
    if (!core.availability.cause(restore.repository_id).empty()) continue;
    if (core.steady_now() < pauses[restore.id]) continue;
    const auto act = [&] {
      return is_due ? drop(core, restore, is_left_over) : end_promotion(core, restore);
    };
    io::Outcome<> done = co_await io::attempt(act);
    if (!done.failed()) continue;
    pauses[restore.id] = core.steady_now() + kPauseAfterFailure;
    io::log(io::LogLevel::error, "restore {} could not be {}: {}", restore.id,
            is_due ? "dropped" : "cleaned up after a promotion", text_of(done.failure()));
  }
}

io::Task<void> watch_restores(Core& core) {
  RestorePauses pauses;
  while (!core.stop_watching.is_set()) {
    io::Outcome<> looked = co_await io::attempt([&] { return look_after_restores(core, pauses); });
    if (looked.failed()) {
      io::log(io::LogLevel::error, "restores could not be looked through: {}",
              text_of(looked.failure()));
    }
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          core.options.watch_interval);
  }
}

}  // namespace engine
