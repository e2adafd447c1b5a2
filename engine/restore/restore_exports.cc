// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/restore_exports.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <stdexcept>

#include "engine/ingest/ingest.h"
#include "engine/restore/changes.h"
#include "engine/restore/points.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "engine/values/time_text.h"
#include "io/call_on.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/task_scope.h"

namespace engine {
namespace {

/// Each holds a map of up to 16 MiB and file descriptors for its layers.
constexpr size_t kOpenMax = 128;
constexpr size_t kApartMax = 1000;
constexpr const char* kShutDown = "server is shutting down";

std::string description_of(const Point& point) {
  return fmt::format("disk {} of {}, {} of {}, {} bytes, {} stored", point.disk_index,
                     point.vm_name, to_text(point.type), to_rfc3339(point.completed_at),
                     point.capacity_bytes, point.allocated_bytes);
}

std::vector<Ancestor> ancestors_of(Catalogue& catalogue, const Point& point) {
  std::vector<Ancestor> ancestors;
  for (const Point& below : catalogue.points.lineage(point)) {
    ancestors.push_back({below.image_id, below.job_id});
  }
  return ancestors;
}

/// Times have seconds only, and one disk may have points in several repositories.
bool is_older(const Point& one, const Point& other) {
  if (one.repository_id == other.repository_id) return one.place < other.place;
  return one.completed_at <= other.completed_at;
}

/// The newest of the older points of the disk that are not in the point's chain.
std::vector<std::string> apart_from(Catalogue& catalogue, const Point& point,
                                    const std::vector<Ancestor>& ancestors) {
  std::vector<std::string> apart;
  for (const Point& other :
       catalogue.points.newest_first(point.vm_name, point.disk_index, kApartMax, 0)) {
    const bool is_ancestor = std::ranges::any_of(
        ancestors, [&](const Ancestor& ancestor) { return ancestor.image_id == other.image_id; });
    if (!is_ancestor && is_older(other, point)) apart.push_back(other.job_id);
  }
  return apart;
}

}  // namespace

struct RestoreExports::Entry {
  Entry(DiskToServe of, io::Runtime on, io::Executor& home)
      : disk(std::move(of)), data(on), changed(home) {}

  const std::string& name() const { return disk.spec.name; }
  bool is_open() const { return served != nullptr && !closing; }
  uint64_t connections() const {
    return served ? served->exported()->counters().connections_now.load() : 0;
  }
  bool is_used() const { return users > 0 || connections() > 0; }

  const DiskToServe disk;
  const io::Runtime data;              // where it lives
  std::unique_ptr<ServedDisk> served;  // null while it is being opened
  bool closing = false;
  uint32_t users = 0;  // beside its connections
  io::SteadyTime last_used{};
  Time opened_at{};
  io::Event changed;  // it has been opened, or it is gone
};

RestoreExports::RestoreExports(io::Runtime home, std::vector<io::Runtime> data,
                               io::Executor& server_thread,
                               const std::unique_ptr<Catalogue>& catalogue,
                               const EngineOptions& options)
    : home_(home),
      data_(std::move(data)),
      server_thread_(server_thread),
      catalogue_(catalogue),
      options_(options) {}

RestoreExports::~RestoreExports() { assert(entries_.empty() && "stop() first"); }

io::Task<std::shared_ptr<nbd::Export>> RestoreExports::open(std::string name) {
  const auto at_home = [&] { return open_at_home(name); };
  co_return co_await io::call_on(home_.executor, server_thread_, at_home);
}

io::Task<std::vector<nbd::OfferedExport>> RestoreExports::list_after(std::string name,
                                                                     size_t count_max) {
  const auto at_home = [&] { return list_at_home(name, count_max); };
  co_return co_await io::call_on(home_.executor, server_thread_, at_home);
}

/// In the modes that hide the exports of jobs, a name that anybody can make up must open nothing.
nbd::ExportAccess RestoreExports::point_access() const {
  return options_.export_access == nbd::ExportAccess::anybody ? nbd::ExportAccess::anybody
                                                              : nbd::ExportAccess::owner;
}

std::string RestoreExports::directory_of(const std::string& repository_id) const {
  const auto repository = catalogue_->repositories.find(repository_id);
  return repository ? repository->directory : std::string();
}

DiskToServe RestoreExports::point_to_serve(const Point& point) const {
  DiskToServe disk;
  disk.job_id = point.job_id;
  disk.vm_name = point.vm_name;
  disk.disk_index = point.disk_index;
  disk.path = point.image_path;
  // A point may lie in a former directory of its repository.
  const std::string directory = directory_of(point.repository_id);
  if (point.image_path.starts_with(directory + "/")) disk.repository_directory = directory;
  disk.ancestors = ancestors_of(*catalogue_, point);
  disk.apart = apart_from(*catalogue_, point, disk.ancestors);
  disk.verified = options_.verify_restores;
  disk.spec.name = point_export_name(point);
  disk.spec.description = description_of(point);
  disk.spec.kind = nbd::ExportKind::point;
  disk.spec.read_only = true;
  disk.spec.access = point_access();
  disk.spec.owner = point.job_id;
  disk.spec.connections_max = options_.connections_per_export;
  return disk;
}

std::optional<DiskToServe> RestoreExports::resolve_restore(const std::string& name) const {
  const auto found = catalogue_->restores.by_export(name);
  if (!found || found->state != RestoreState::ready) return std::nullopt;
  const auto& promotion = found->promotion;
  if (promotion && promotion->state == PromotionState::copying) return std::nullopt;
  const auto of = std::ranges::find(found->disks, name, &RestoreDisk::export_name);
  const auto point = catalogue_->points.find(of->image_id);
  if (!point || found->mode != RestoreMode::writable) return std::nullopt;
  DiskToServe disk = point_to_serve(*point);
  disk.path = of->path;
  disk.writable = true;
  disk.size_limit_bytes = found->size_limit_bytes;
  disk.commit_interval = options_.commit_interval;
  disk.commit_bytes = options_.commit_bytes;
  disk.spec.name = name;
  disk.spec.description = fmt::format("writable restore of {}", point_export_name(*point));
  disk.spec.kind = nbd::ExportKind::temporary;
  disk.spec.read_only = false;
  disk.spec.access = nbd::ExportAccess::by_name;
  disk.spec.owner = found->id;
  disk.spec.writes_may_recover = true;
  return disk;
}

std::optional<DiskToServe> RestoreExports::resolve(const std::string& name) const {
  if (!catalogue_) return std::nullopt;
  if (name.starts_with(kRestorePrefix)) {
    if (auto disk = resolve_restore(name)) return disk;
  }
  const auto wanted = parse_point_name(name);
  if (!wanted) return std::nullopt;
  const auto point = find_point(catalogue_->points, *wanted);
  if (!point) return std::nullopt;
  return point_to_serve(*point);
}

io::Task<std::shared_ptr<nbd::Export>> RestoreExports::open_at_home(std::string name) {
  const Shared entry = co_await open_least_used(std::move(name));
  if (!entry) co_return nullptr;
  co_return entry->served->exported();
}

/// A further connection to a point gets a thread of its own, as long as there is one that does not
/// serve the point: threads share nothing, so each has the point open for itself. An overlay has
/// one writer and lives on one.
io::Task<RestoreExports::Shared> RestoreExports::open_least_used(std::string name) {
  while (!stopped_) {
    std::optional<DiskToServe> disk = resolve(name);
    if (!disk) break;
    Shared best, changing;
    size_t open_count = 0;
    const auto [first, last] = entries_.equal_range(disk->spec.name);
    for (auto at = first; at != last; ++at, ++open_count) {
      const Shared& entry = at->second;
      if (!entry->is_open()) {
        changing = entry;
      } else if (!best || entry->connections() < best->connections()) {
        best = entry;
      }
    }
    const bool is_enough =
        best && (best->connections() == 0 || best->disk.writable || open_count == data_.size());
    if (is_enough || (best && changing)) {
      best->last_used = home_.clock.now();
      co_return best;
    }
    if (!changing) co_return co_await open_entry(std::move(*disk));
    co_await changing->changed.wait();
  }
  co_return nullptr;
}

const io::Runtime& RestoreExports::least_loaded(std::string_view not_serving) const {
  const auto load = [&](const io::Runtime& data) {
    size_t count = 0;
    for (const auto& [name, entry] : entries_) {
      if (&entry->data.executor != &data.executor) continue;
      count += name == not_serving ? kOpenMax : 1;
    }
    return count;
  };
  return *std::ranges::min_element(data_, {}, load);
}

io::Task<RestoreExports::Shared> RestoreExports::open_entry(DiskToServe disk) {
  const std::string name = disk.spec.name;
  const io::Runtime& data = least_loaded(name);
  const auto entry = std::make_shared<Entry>(std::move(disk), data, home_.executor);
  entries_.emplace(name, entry);
  const auto open = [&]() -> io::Task<std::unique_ptr<ServedDisk>> {
    co_await make_room();
    const auto there = [&] { return ServedDisk::open(entry->data, entry->disk); };
    co_return co_await io::call_on(entry->data.executor, home_.executor, there);
  };
  auto opened = co_await io::attempt(open);
  entry->last_used = home_.clock.now();
  entry->opened_at = to_seconds(home_.clock.wall_time());
  if (opened.failed()) {
    forget(*entry);
    io::log(io::LogLevel::warning, "restore: \"{}\" could not be opened: {}", name,
            text_of(opened.failure()));
  }
  entry->served = opened.take();
  entry->changed.set();
  if (stopped_) {
    co_await close(entry, kShutDown);
    co_return nullptr;
  }
  if (!is_open_elsewhere(*entry)) io::log(io::LogLevel::info, "restore: \"{}\" is open", name);
  co_return entry;
}

bool RestoreExports::is_open_elsewhere(const Entry& entry) const {
  const auto [first, last] = entries_.equal_range(entry.name());
  return std::any_of(first, last, [&](const auto& named) {
    return named.second.get() != &entry && named.second->served;
  });
}

void RestoreExports::forget(Entry& entry) {
  const auto [first, last] = entries_.equal_range(entry.name());
  for (auto at = first; at != last; ++at) {
    if (at->second.get() != &entry) continue;
    entries_.erase(at);
    break;
  }
  entry.changed.set();
}

/// Closes what has been unused for the longest time when too many are open.
io::Task<void> RestoreExports::make_room() {
  while (entries_.size() > kOpenMax) {
    Shared oldest;
    for (const auto& [name, entry] : entries_) {
      if (!entry->is_open() || entry->is_used()) continue;
      if (!oldest || entry->last_used < oldest->last_used) oldest = entry;
    }
    if (!oldest) {
      throw std::runtime_error(
          fmt::format("{} points are being read already; wait until one is closed", kOpenMax));
    }
    co_await close(oldest, std::nullopt);
  }
}

io::Task<void> RestoreExports::close(Shared entry, std::optional<std::string> reason) {
  assert(entry->served);
  if (entry->closing) {
    co_await entry->changed.wait();
    co_return;
  }
  entry->closing = true;
  entry->changed.reset();
  while (entry->users > 0) {
    co_await io::sleep(home_.executor, home_.clock, std::chrono::milliseconds(1));
  }
  const auto there = [&] { return entry->served->close(reason); };
  co_await io::call_on(entry->data.executor, home_.executor, there);
  on_closed(entry->served->exported()->counters());
  forget(*entry);
  if (!is_open_elsewhere(*entry)) {
    io::log(io::LogLevel::info, "restore: \"{}\" is closed", entry->name());
  }
}

io::Task<void> RestoreExports::close_idle_until(io::Event& stop) {
  while (!stop.is_set()) {
    const io::Duration interval =
        std::min<io::Duration>(options_.watch_interval, options_.point_idle);
    co_await io::wait_for(home_.executor, home_.clock, stop, interval);
    co_await close_idle();
  }
}

io::Task<void> RestoreExports::close_idle() {
  const io::SteadyTime now = home_.clock.now();
  std::vector<Shared> idle;
  for (const auto& [name, entry] : entries_) {
    if (entry->is_used()) entry->last_used = now;
    if (entry->is_open() && now - entry->last_used >= options_.point_idle) idle.push_back(entry);
  }
  for (const Shared& entry : idle) {
    if (entry->is_open() && !entry->is_used()) co_await close(entry, std::nullopt);
  }
}

io::Task<void> RestoreExports::close_unread(std::vector<std::string> job_ids) {
  std::vector<Shared> unread;
  for (const auto& [name, entry] : entries_) {
    const bool is_named = std::ranges::find(job_ids, entry->disk.job_id) != job_ids.end();
    if (is_named && entry->served && !entry->disk.writable) unread.push_back(entry);
  }
  for (const Shared& entry : unread) {
    if (!entry->is_used()) co_await close(entry, std::nullopt);
  }
}

io::Task<void> RestoreExports::close_named(std::string name, std::string reason) {
  for (auto found = entries_.find(name); found != entries_.end(); found = entries_.find(name)) {
    const Shared entry = found->second;
    if (entry->served) {
      co_await close(entry, reason);
    } else {
      co_await entry->changed.wait();
    }
  }
}

/// The point of one disk of a backup. Throws backup_not_found, job_not_found.
Point RestoreExports::require_point(const std::string& backup_id, uint32_t disk_index) const {
  const std::vector<Point> points = catalogue_->points.of_job(backup_id);
  if (points.empty()) throw refusals::backup_not_found(backup_id);
  for (const Point& point : points) {
    if (point.disk_index == disk_index) return point;
  }
  throw refusals::job_not_found(backup_id, fmt::format("the job has no disk {}", disk_index));
}

io::Task<ChangesView> RestoreExports::changes(ChangesQuery query) {
  const Point newer = require_point(query.backup_id, query.disk_id);
  const Point older = require_point(query.since, query.disk_id);
  if (older.context_id != newer.context_id || !is_older(older, newer)) {
    throw refusals::points_not_comparable(
        query.backup_id, fmt::format("'{}' is no older point of disk {} of '{}'", query.since,
                                     query.disk_id, newer.vm_name));
  }
  const Shared entry = co_await open_least_used(point_export_name(newer));
  if (!entry) throw refusals::backup_not_found(query.backup_id);
  const auto there = [&] { return read_changes(*entry->served->exported(), query); };
  ++entry->users;
  auto read = co_await io::attempt(
      [&] { return io::call_on(entry->data.executor, home_.executor, there); });
  --entry->users;
  entry->last_used = home_.clock.now();
  co_return read.take();
}

io::Task<std::vector<nbd::OfferedExport>> RestoreExports::list_at_home(std::string after,
                                                                       size_t count_max) {
  std::vector<nbd::OfferedExport> listed;
  if (!catalogue_ || stopped_) co_return listed;
  const PointName last = parse_point_name(after).value_or(PointName());
  for (const Point& point :
       catalogue_->points.after(last.vm_name, last.disk_index, last.point, count_max)) {
    listed.push_back(
        {point_export_name(point), description_of(point), point_access(), point.job_id});
  }
  co_return listed;
}

ExportView RestoreExports::view_of(const Entry& entry) {
  const nbd::Export& exported = *entry.served->exported();
  ExportView view;
  view.name = entry.name();
  view.kind = entry.disk.writable ? ExportKind::temporary : ExportKind::point;
  view.backup_id = entry.disk.job_id;
  view.vm_name = entry.disk.vm_name;
  view.disk_index = entry.disk.disk_index;
  view.read_only = exported.read_only();
  view.size_bytes = exported.size();
  view.state = "open";
  view.opened_at = entry.opened_at;
  return view;
}

std::vector<ExportView> RestoreExports::views() const {
  std::vector<ExportView> views;
  for (const auto& [name, entry] : entries_) {
    if (!entry->served) continue;
    if (views.empty() || views.back().name != name) views.push_back(view_of(*entry));
    ExportView& view = views.back();
    const nbd::Counters& traffic = entry->served->exported()->counters();
    view.connections += static_cast<uint32_t>(traffic.connections_now);
    view.bytes_received += traffic.bytes_received;
    view.bytes_zeroed += traffic.bytes_zeroed;
    view.bytes_read += traffic.bytes_read;
    view.in_flight_bytes += traffic.in_flight_bytes;
    view.opened_at = std::min(view.opened_at, entry->opened_at);
    const std::chrono::nanoseconds last(traffic.last_request_wall_ns.load());
    const Time asked(std::chrono::floor<std::chrono::seconds>(last));
    if (last.count() != 0)
      view.last_request_at = std::max(view.last_request_at.value_or(asked), asked);
  }
  return views;
}

std::vector<const nbd::Counters*> RestoreExports::traffic() const {
  std::vector<const nbd::Counters*> counters;
  for (const auto& [name, entry] : entries_) {
    if (entry->served) counters.push_back(&entry->served->exported()->counters());
  }
  return counters;
}

io::Task<void> RestoreExports::stop() {
  stopped_ = true;
  const auto close_all = [this](io::TaskScope& scope) -> io::Task<void> {
    for (const auto& [name, entry] : entries_) {
      if (entry->served) scope.spawn(close(entry, kShutDown));
    }
    co_return;
  };
  co_await io::run_scoped(close_all);
  // Those that were being opened close by themselves.
  while (!entries_.empty()) {
    co_await io::sleep(home_.executor, home_.clock, std::chrono::milliseconds(1));
  }
}

}  // namespace engine
