#include "engine/delete_job.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/end_job.h"
#include "engine/refusal.h"
#include "engine/repository_files.h"
#include "engine/repository_watch.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr int64_t kSecondsPerDay = int64_t{24} * 60 * 60;

/// Files of a share that is not mounted would stay behind without rows.
io::Task<void> require_repository(Core& core, Job job) {
  if (job.state != JobState::completed) co_return;
  const auto repository = core.catalogue->repositories.find(job.repository_id);
  if (repository) co_await require_available(core, *repository);
}

void postpone(Core& core, const std::string& job_id, const std::string& cause) {
  std::string& known = core.late_deletions[job_id];
  if (known == cause) return;
  known = cause;
  io::log(io::LogLevel::error, "backup {} cannot be deleted yet: {}", job_id, cause);
}

void require_deletable(Core& core, const Job& job) {
  if (is_active(job.state)) throw refusals::backup_is_running(job.id);
  if (job.state != JobState::completed) return;
  const auto repository = core.catalogue->repositories.find(job.repository_id);
  if (!repository) return;
  if (repository->is_immutable) {
    throw refusals::backup_is_immutable(
        job.id, fmt::format("repository '{}' is immutable", repository->id));
  }
  const auto age = core.now() - job.completed_at.value_or(job.created_at);
  if (age.count() < repository->min_retention_days * kSecondsPerDay) {
    throw refusals::backup_is_immutable(
        job.id, fmt::format("'{}' is younger than the {} days that repository '{}' keeps", job.id,
                            repository->min_retention_days, repository->id));
  }
}

/// A point is in use while an image is written on it, and while somebody reads an export of it.
void require_unused(Core& core, const std::vector<std::string>& job_ids) {
  const auto is_among = [&](const std::string& id) {
    return std::find(job_ids.begin(), job_ids.end(), id) != job_ids.end();
  };
  for (const auto& running : core.jobs.all()) {
    if (!is_active(running->row.state)) continue;
    for (const JobDisk& disk : running->row.disks) {
      if (!is_among(disk.parent_job_id)) continue;
      throw refusals::backup_is_in_use(
          disk.parent_job_id, fmt::format("backup '{}' is being written on it", running->row.id));
    }
  }
}

Job require_job(Core& core, const std::string& backup_id) {
  auto job = core.catalogue->jobs.find(backup_id);
  if (!job || job->deleting) throw refusals::backup_not_found(backup_id);
  return std::move(*job);
}

}  // namespace

io::Task<DeletedBackup> delete_job(Core& core, std::string backup_id, bool cascade) {
  if (const auto ending = core.jobs.find(backup_id); ending && !is_active(ending->row.state)) {
    const io::Grant exports_are_closed = co_await ending->steps.lock();
  }
  Job wanted = require_job(core, backup_id);
  co_await require_repository(core, std::move(wanted));
  const Job job = require_job(core, backup_id);
  std::vector<std::string> doomed = core.catalogue->jobs.dependents(backup_id);
  if (is_active(job.state)) throw refusals::backup_is_running(backup_id);
  if (!doomed.empty() && !cascade) throw refusals::backup_has_dependents(backup_id, doomed);
  doomed.push_back(backup_id);
  for (const std::string& id : doomed) require_deletable(core, require_job(core, id));
  require_unused(core, doomed);

  core.catalogue->jobs.mark_deleting(doomed);
  core.parts.reached("marked");
  DeletedBackup deleted;
  for (const std::string& id : doomed) {
    auto marked = core.catalogue->jobs.find(id);
    if (!marked) continue;
    try {
      deleted.freed_bytes += co_await finish_deletion(core, std::move(*marked));
    } catch (const std::exception& failure) {
      postpone(core, id, failure.what());
      throw;
    }
    deleted.deleted.push_back(id);
  }
  co_return deleted;
}

io::Task<uint64_t> finish_deletion(Core& core, Job job) {
  uint64_t freed = 0;
  if (job.state == JobState::completed) {
    for (const JobDisk& disk : job.disks) {
      freed += co_await remove_image(core.files(), disk.image_path);
      core.parts.reached("unlinked");
      co_await refresh_chain_file(core, job.context_id, job.repository_id, disk.index);
      co_await refresh_latest_link(core, job.context_id, job.repository_id, disk.index, disk.key);
      co_await remove_empty_directories(core.files(), disk.image_path);
    }
  }
  core.parts.reached("erase");
  core.catalogue->jobs.erase(job.id, core.now());
  io::log(io::LogLevel::info, "backup {} deleted, {} bytes freed", job.id, freed);
  co_return freed;
}

io::Task<void> try_deletion(Core& core, Job job) {
  const std::string id = job.id;
  try {
    co_await finish_deletion(core, std::move(job));
    core.late_deletions.erase(id);
  } catch (const std::exception& failure) {
    postpone(core, id, failure.what());
  }
}

io::Task<void> finish_late_deletions(Core& core, std::string repository_id) {
  if (core.late_deletions.empty()) co_return;
  std::vector<Job> deleting = core.catalogue->jobs.deleting_jobs();
  for (Job& job : deleting) {
    if (job.repository_id != repository_id || !core.late_deletions.contains(job.id)) continue;
    co_await try_deletion(core, std::move(job));
  }
}

}  // namespace engine
