// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/care/verify_image.h"
#include "engine/catalogue/catalogue.h"
#include "engine/catalogue/secrets.h"
#include "engine/ingest/node_client.h"
#include "engine/ingest/ports.h"
#include "engine/jobs/active_job.h"
#include "engine/jobs/tally.h"
#include "engine/jobs/unfinished.h"
#include "engine/repository/context_turns.h"
#include "engine/repository/instance_lock.h"
#include "engine/restore/promotion.h"
#include "engine/restore/restore_exports.h"
#include "engine/values/availability.h"
#include "engine/values/notification.h"
#include "engine/values/options.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "nbd/export_table.h"
#include "nbd/server.h"
#include "qcow/image/disk_share.h"

namespace engine {

/// What the application builds and lends to the engine.
struct EngineParts {
  io::Runtime home;               ///< the control thread's: no export lives there, SQLite may block
  std::vector<io::Runtime> data;  ///< the threads of images and exports; at least one
  io::Executor& server_thread;
  nbd::Server& server;        ///< of server_thread
  nbd::ExportTable& exports;  ///< the one that the server looks names up in
  NodeClient& node;
  ReaderProcesses* second_reader = nullptr;  ///< none: verifications do without
  Notifier* notifier = nullptr;              ///< none: nobody is told
  /// Told after each step of start, seal and publish, by name: tests stop, fail or copy there.
  std::function<void(std::string_view step)> reached = [](std::string_view) {};
};

/// The end of a job that the catalogue could not take when it came.
struct UnrecordedEnd {
  std::string job_id;
  JobState state = JobState::failed;
  std::string cause;
  Time at{};
  bool kept = false;
};

/// What a look at a repository has found.
struct RepositorySpace {
  StorageMeasure measure;
  uint64_t reserve_bytes = 0;
  bool is_low = false;  ///< somebody was told; until there is clearly more again
};

/// What the parts of the engine share.
///
/// Everything in here belongs to the control thread, without locks, except the flags, which health
/// answers read anywhere.
struct Core {
  Core(EngineParts lent, EngineOptions given)
      : parts(std::move(lent)),
        options(std::move(given)),
        turns(parts.home.executor),
        unfinished(parts.home.clock, options.retry_interval),
        ports(parts.home, parts.server_thread, parts.server, parts.exports, options),
        restores(parts.home, parts.data, parts.server_thread, catalogue, options),
        stop_watching(parts.home.executor) {
    restores.on_closed = [this](const nbd::Counters& counters) { tally.note_traffic(counters); };
  }

  Time now() const { return to_seconds(parts.home.clock.wall_time()); }
  io::SteadyTime steady_now() const { return parts.home.clock.now(); }
  io::FileSystem& files() const { return parts.home.files; }

  /// Counts the event, and tells those who want to know of it; fills in the time.
  void tell(Notification notification);
  /// A backup has ended. `code` of a failed one only.
  void tell_end(const Job& job, JobState state, const std::string& cause,
                std::optional<FailureCode> code = std::nullopt);

  /// The data thread that fills the fewest disks.
  const io::Runtime& least_loaded() const;

  /// What the images in a repository's directory share.
  std::shared_ptr<qcow::DiskShare> disk_share(const std::string& directory);

  EngineParts parts;
  EngineOptions options;  ///< changed by EngineImpl::change alone

  std::unique_ptr<Catalogue> catalogue;
  std::optional<Secrets> secrets;
  ActiveJobs jobs;
  ContextTurns turns;
  Unfinished unfinished;
  Ports ports;
  RestoreExports restores;
  std::map<std::string, std::shared_ptr<PromotionUnderWay>> promotions;  ///< by restore id
  Verifications verifications;
  uint64_t verifications_begun = 0;
  Tally tally;
  std::vector<UnrecordedEnd> unrecorded_ends;
  std::map<std::string, InstanceLock> locks;  ///< by catalogue file and repository id
  Availability availability;
  std::map<std::string, RepositorySpace> spaces;    ///< as last measured, by id
  bool intervals_changed = false;                   ///< an expected one, since the last look
  std::map<std::string, io::SteadyTime> looked_at;  ///< since when a repository is looked at, by id
  /// What runs in the background: failing jobs, ended exports. Joined at shutdown.
  io::TaskScope background;
  io::Event stop_watching;  ///< set at shutdown

  std::atomic<bool> catalogue_open = false, recovered = false, shutting_down = false;
  std::atomic<bool> catalogue_writable = true;
  mutable std::atomic<bool> health_was_asked = false;  ///< since the catalogue was last tried

 private:
  std::map<std::string, std::shared_ptr<qcow::DiskShare>> disks_;  // by repository directory
};

}  // namespace engine
