// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalogue/catalogue.h"
#include "engine/restore/served_disk.h"
#include "engine/values/options.h"
#include "engine/values/requests.h"
#include "engine/values/views.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "nbd/export_source.h"

namespace engine {

/// What can be read without a backup running, as NBD exports: every published point, read-only, and
/// the private overlays of writable restores. Opened when a client names it, shared by all its
/// clients, closed when nobody has used it for a while.
///
/// Invariant: what is open is locked as any reader locks it, so nothing removes the files below; a
/// disk outlives its export, and that its connections. A name is opened once for each data thread,
/// an overlay once in all, however many ask for it at a time. Belongs to the control thread, except
/// for what it is to the server (nbd::ExportSource), which comes from there. Spec: docs/restore.md.
class RestoreExports final : public nbd::ExportSource {
 public:
  /// `catalogue` is null before the engine is up and after it is down: there is nothing then.
  RestoreExports(io::Runtime home, std::vector<io::Runtime> data, io::Executor& server_thread,
                 const std::unique_ptr<Catalogue>& catalogue, const EngineOptions& options);
  /// After stop().
  ~RestoreExports() override;

  // On the server's thread.

  /// A point by backup id, "latest" or time (point_name.h), or the export of a restore.
  io::Task<std::shared_ptr<nbd::Export>> open(std::string name) override;
  /// Points only: the names of restores are secrets.
  io::Task<std::vector<nbd::OfferedExport>> list_after(std::string name, size_t count_max) override;

  // On the control thread.

  /// Until `stop` is set: closes what nobody has used for EngineOptions::point_idle.
  io::Task<void> close_idle_until(io::Event& stop);
  /// Closes the points of these backups that nobody reads, so that their files can go.
  io::Task<void> close_unread(std::vector<std::string> job_ids);
  /// Closes an export, its clients with it; does nothing when it is not open.
  io::Task<void> close_named(std::string name, std::string reason);
  /// Opens the newer point. Throws backup_not_found, job_not_found, points_not_comparable.
  io::Task<ChangesView> changes(ChangesQuery query);
  /// Those that are open, by name. Without their ways in: uris, port.
  std::vector<ExportView> views() const;
  /// What those that are open have counted, a name once for each thread that serves it.
  std::vector<const nbd::Counters*> traffic() const;
  /// Told what an export has counted when it is gone; set before any is opened.
  std::function<void(const nbd::Counters&)> on_closed = [](const nbd::Counters&) {};
  /// Opens nothing any more, ends all connections, closes everything.
  io::Task<void> stop();

  /// Where new work on disks goes.
  const io::Runtime& least_loaded(std::string_view not_serving = {}) const;

 private:
  struct Entry;
  using Shared = std::shared_ptr<Entry>;

  std::optional<DiskToServe> resolve(const std::string& name) const;
  std::optional<DiskToServe> resolve_restore(const std::string& name) const;
  DiskToServe point_to_serve(const Point& point) const;
  Point require_point(const std::string& backup_id, uint32_t disk_index) const;
  io::Task<std::shared_ptr<nbd::Export>> open_at_home(std::string name);
  io::Task<std::vector<nbd::OfferedExport>> list_at_home(std::string after, size_t count_max);
  io::Task<Shared> open_least_used(std::string name);
  io::Task<Shared> open_entry(DiskToServe disk);
  /// On another data thread: what is opened twice is one event to people.
  bool is_open_elsewhere(const Entry& entry) const;
  void forget(Entry& entry);
  static ExportView view_of(const Entry& entry);
  io::Task<void> make_room();
  io::Task<void> close_idle();
  io::Task<void> close(Shared entry, std::optional<std::string> reason);
  nbd::ExportAccess point_access() const;
  std::string directory_of(const std::string& repository_id) const;

  const io::Runtime home_;
  const std::vector<io::Runtime> data_;
  io::Executor& server_thread_;
  const std::unique_ptr<Catalogue>& catalogue_;
  const EngineOptions& options_;
  std::multimap<std::string, Shared> entries_;  // by the name of their export
  bool stopped_ = false;
};

}  // namespace engine
