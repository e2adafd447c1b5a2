// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/delete_job.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/end_job.h"
#include "engine/jobs/job_view.h"
#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/repository_files.h"
#include "engine/jobs/repository_watch.h"
#include "engine/repository/own_image.h"
#include "engine/values/log_fields.h"
#include "engine/values/refusal.h"
#include "engine/values/retention.h"
#include "io/log.h"
#include "io/planted_bug.h"
#include "qcow/chain/layer.h"

namespace engine {
namespace {

/// Files of a share that is not mounted would stay behind without rows.
io::Task<void> require_repository(Core& core, Job job) {
  if (job.state != JobState::completed) co_return;
  const auto repository = core.catalogue->repositories.find(job.repository_id);
  if (repository) co_await require_available(core, *repository);
}

void require_deletable(Catalogue& catalogue, const Job& job, Time now) {
  if (is_active(job.state)) throw refusals::backup_is_running(job.id);
  if (job.state != JobState::completed) return;
  const auto repository = catalogue.repositories.find(job.repository_id);
  if (!repository) return;
  const RetentionLock lock =
      retention_lock(*repository, job.completed_at.value_or(job.created_at), now);
  if (!lock.is_locked) return;
  if (!lock.until) {
    throw refusals::backup_is_immutable(
        job.id, fmt::format("repository '{}' is immutable", repository->id));
  }
  throw refusals::backup_is_immutable(
      job.id, fmt::format("'{}' is younger than the {} days that repository '{}' keeps", job.id,
                          repository->min_retention_days, repository->id));
}

/// A point is in use while an image is written on it. Readers are found by their locks
/// (hold_images).
void require_unused(const ActiveJobs& jobs, const std::vector<std::string>& job_ids) {
  const auto is_among = [&](const std::string& id) {
    return std::find(job_ids.begin(), job_ids.end(), id) != job_ids.end();
  };
  for (const auto& running : jobs.all()) {
    if (!is_active(running->row.state)) continue;
    for (const JobDisk& disk : running->row.disks) {
      if (!is_among(disk.parent_job_id)) continue;
      throw refusals::backup_is_in_use(
          disk.parent_job_id, fmt::format("backup '{}' is being written on it", running->row.id));
    }
  }
}

/// Also when no client is connected to the restore at the moment.
void require_unrestored(Catalogue& catalogue, const std::vector<std::string>& job_ids) {
  for (const std::string& id : job_ids) {
    const std::vector<Restore> restores = catalogue.restores.of_job(id);
    if (restores.empty()) continue;
    throw refusals::backup_is_in_use(
        id, fmt::format("restore '{}' works with it", restores.front().id));
  }
}

/// A verification that was cancelled ends with its read, which storage that hangs never gives back.
void require_let_go(const Verifications& known, const std::vector<std::string>& job_ids) {
  for (const auto& one : known) {
    if (one->task.state != VerificationState::running || !one->progress->cancelled) continue;
    if (std::ranges::find(job_ids, one->reading) == job_ids.end()) continue;
    throw refusals::backup_is_in_use(
        one->reading, fmt::format("verification '{}' was cancelled and still reads it: its storage "
                                  "does not answer; try again once it does",
                                  one->task.id));
  }
}

/// An image that no program has open, and that none opens while this is held.
struct UnusedImage {
  std::unique_ptr<io::File> file;
  qcow::ImageLock lock;  // given back before the file closes
};

/// The locks of a writer contradict those of every reader: varve nbd, qemu, an overlay on the
/// point.
io::Task<std::vector<UnusedImage>> hold_images(Core& core, std::vector<std::string> job_ids) {
  std::vector<UnusedImage> held;
  for (const std::string& id : job_ids) {
    const Job job = require_backup(*core.catalogue, id);
    if (job.state != JobState::completed) continue;
    for (const JobDisk& disk : job.disks) {
      const auto there = co_await core.files().status(disk.image_path, false);
      if (!there || there->kind != io::FileKind::file) continue;
      UnusedImage image;
      image.file = co_await core.files().open(disk.image_path, io::OpenMode::read_only);
      const std::string name = qcow::image_name_of(disk.image_path);
      try {
        image.lock = co_await qcow::ImageLock::acquire_patiently(core.parts.home, *image.file,
                                                                 qcow::LockRole::writer, name);
      } catch (const qcow::FormatError& in_use) {
        throw refusals::backup_is_in_use(id, in_use.what());
      }
      held.push_back(std::move(image));
    }
  }
  co_return held;
}

/// Those that deleting this one deletes, in order; itself last.
std::vector<std::string> doomed_with(Core& core, const std::string& backup_id, bool cascade) {
  const Job job = require_backup(*core.catalogue, backup_id);
  std::vector<std::string> doomed = core.catalogue->jobs.dependents(backup_id);
  if (is_active(job.state)) throw refusals::backup_is_running(backup_id);
  if (!doomed.empty() && !cascade) throw refusals::backup_has_dependents(backup_id, doomed);
  doomed.push_back(backup_id);
  for (const std::string& id : doomed) {
    require_deletable(*core.catalogue, require_backup(*core.catalogue, id), core.now());
  }
  require_unused(core.jobs, doomed);
  require_unrestored(*core.catalogue, doomed);
  return doomed;
}

/// Files that seemed to be gone because their file system had gone are not deleted.
io::Task<void> require_removed(Catalogue& catalogue, io::FileSystem& files, Job job) {
  const auto repository = catalogue.repositories.find(job.repository_id);
  if (repository) co_await identify(catalogue, files, *repository);
  for (const JobDisk& disk : job.disks) {
    const NamedFile left = co_await look_at_image(files, disk.image_path, disk.image_uuid);
    if (left == NamedFile::ours) {
      throw std::runtime_error(fmt::format("{} was away and is there again", disk.image_path));
    }
  }
}

/// Files first, then the rows: what a crash or an error leaves can be found and done again. The
/// caller has the context's turn.
io::Task<uint64_t> remove_backup(Core& core, Job job) {
  uint64_t freed = 0;
  PLANTED_BUG(deletion_row_first, core.catalogue->jobs.erase(job.id, core.now());
              for (const JobDisk& disk
                   : job.disks) co_await remove_point(core.files(), disk);
              co_return 0)
  if (job.state == JobState::completed) {
    for (const JobDisk& disk : job.disks) {
      freed += co_await remove_point(core.files(), disk);
      core.parts.reached("unlinked");
    }
    co_await require_removed(*core.catalogue, core.files(), job);
    for (const JobDisk& disk : job.disks) {
      co_await refresh_disk_files(core, job.context_id, job.repository_id, disk.index, disk.key);
    }
    co_await remove_empty_directories(core.files(), job);
  }
  core.parts.reached("erase");
  core.catalogue->jobs.erase(job.id, core.now());
  io::log(io::LogLevel::info, about(job), "backup {} deleted, {} freed", job.id,
          io::bytes_text(freed));
  co_return freed;
}

/// Points that lie elsewhere, because the repository was given another directory since, are not
/// forgotten while their file system is away.
io::Task<void> require_directories(Catalogue& catalogue, io::FileSystem& files,
                                   std::vector<std::string> job_ids) {
  for (const std::string& id : job_ids) {
    const Job job = require_backup(catalogue, id);
    const auto repository = catalogue.repositories.find(job.repository_id);
    if (!repository || job.state != JobState::completed) continue;
    for (const JobDisk& disk : job.disks) {
      if (disk.image_path.starts_with(repository->directory + "/")) continue;
      const std::string directory = io::parent_path(disk.image_path);
      const auto there = co_await files.status(directory);
      if (there) continue;
      throw refusals::repository_unavailable(
          repository->id, fmt::format("{} of backup {} does not exist: mount its file system, or "
                                      "make the directory if its files are gone for good",
                                      directory, id));
    }
  }
}

/// All of them, in this order.
io::Task<DeletedBackup> remove_backups(Core& core, std::vector<std::string> marked_ids) {
  DeletedBackup deleted;
  for (const std::string& id : marked_ids) {
    auto marked = core.catalogue->jobs.find(id);
    if (!marked) continue;
    deleted.freed_bytes += co_await remove_backup(core, std::move(*marked));
    deleted.deleted.push_back(id);
  }
  co_return deleted;
}

}  // namespace

io::Task<DeletedBackup> delete_job(Core& core, std::string backup_id, bool cascade) {
  if (const auto ending = core.jobs.find(backup_id); ending && !is_active(ending->row.state)) {
    const io::Grant exports_are_closed = co_await ending->steps.lock();
  }
  const Job job = require_backup(*core.catalogue, backup_id);
  co_await require_repository(core, job);
  if (job.kept) co_await drop_kept(core, job, "it is deleted");
  co_await end_scrub(core.parts.home, core.verifications);
  // Whoever deletes the same backup, or another one of the VM, comes first or finds it gone.
  const io::Grant turn = co_await core.turns.take(job.repository_id, job.context_id);
  const std::vector<std::string> doomed = doomed_with(core, backup_id, cascade);
  require_let_go(core.verifications, doomed);

  co_await require_directories(*core.catalogue, core.files(), doomed);
  co_await core.restores.close_unread(doomed);
  const std::vector<UnusedImage> held = co_await hold_images(core, doomed);
  require_unused(core.jobs, doomed);  // a start takes no turn until it has its parent

  core.catalogue->jobs.mark_deleting(doomed);
  core.parts.reached("marked");
  try {
    co_return co_await remove_backups(core, doomed);
  } catch (const std::exception& cause) {
    // Those that are deleted already are found so at the first try.
    for (const std::string& id : doomed) core.unfinished.add_job(id, cause.what());
    throw;
  }
}

io::Task<void> finish_deletion(Core& core, Job job) {
  const io::Grant turn = co_await core.turns.take(job.repository_id, job.context_id);
  std::vector<std::string> marked = core.catalogue->jobs.dependents(job.id);
  marked.push_back(job.id);
  co_await remove_backups(core, std::move(marked));
}

}  // namespace engine
