#include "engine/recovery.h"

#include <fmt/format.h>

#include <set>
#include <tuple>

#include "engine/delete_job.h"
#include "engine/end_job.h"
#include "engine/publish.h"
#include "engine/repository_files.h"
#include "engine/storage.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr const char* kRestarted = "server restarted during backup";

io::Task<void> fail_unfinished(Core& core, Job job, std::string cause) {
  core.catalogue->jobs.end(job.id, JobState::failed, cause, core.now());
  io::log(io::LogLevel::warning, "job {} of VM {} failed: {}", job.id, job.vm_name, cause);
  co_await discard_images(core, job);
  for (const JobDisk& disk : job.disks) {
    co_await refresh_chain_file(core, job.context_id, job.repository_id, disk.index);
  }
}

io::Task<void> settle_job(Core& core, Job job) {
  if (job.state != JobState::finalizing) {
    co_await fail_unfinished(core, std::move(job), kRestarted);
    co_return;
  }
  std::string cause;
  try {
    co_await roll_forward(core, job);
  } catch (const std::exception& failure) {
    cause =
        fmt::format("{}, and its publishing cannot be finished: {}", kRestarted, failure.what());
  }
  if (cause.empty()) {
    io::log(io::LogLevel::info, "job {} of VM {} completed: published after the restart", job.id,
            job.vm_name);
  } else {
    co_await fail_unfinished(core, std::move(job), std::move(cause));
  }
}

/// A crash between the last transaction and the links.
io::Task<void> restore_links(Core& core, Repository repository) {
  std::set<std::tuple<std::string, uint32_t, uint32_t>> disks;
  for (const Point& point : core.catalogue->points.list(repository.id)) {
    disks.emplace(point.context_id, point.disk_index, point.disk_key);
  }
  for (const auto& [context_id, index, key] : disks) {
    co_await refresh_latest_link(core, context_id, repository.id, index, key);
  }
}

/// Jobs that no life before this one has ended, of this repository.
io::Task<void> settle_jobs(Core& core, std::string repository_id) {
  std::vector<Job> active = core.catalogue->jobs.active_jobs();
  for (Job& job : active) {
    if (job.repository_id != repository_id || core.jobs.find(job.id)) continue;
    co_await settle_job(core, std::move(job));
  }
}

io::Task<void> finish_deletions(Core& core, std::string repository_id) {
  std::vector<Job> deleting = core.catalogue->jobs.deleting_jobs();
  for (Job& job : deleting) {
    if (job.repository_id == repository_id) co_await try_deletion(core, std::move(job));
  }
}

bool is_written_to(Core& core, const std::string& repository_id) {
  for (const auto& job : core.jobs.all()) {
    if (job->row.repository_id == repository_id) return true;
  }
  return false;
}

/// What is unpublished and what is in the way of readers; nothing that matters is lost without it.
io::Task<void> tidy(Core& core, Repository repository) {
  try {
    co_await remove_strays(core, repository);
    co_await restore_links(core, repository);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "repository {} cannot be looked through: {}", repository.id,
            failure.what());
  }
}

}  // namespace

io::Task<void> recover_repository(Core& core, Repository repository) {
  co_await settle_jobs(core, repository.id);
  co_await finish_deletions(core, repository.id);
  // A job that has outlived the repository's absence writes files that look like strays.
  if (!is_written_to(core, repository.id)) co_await tidy(core, std::move(repository));
}

void fail_unreachable_jobs(Core& core) {
  for (const Job& job : core.catalogue->jobs.active_jobs()) {
    const std::string cause = core.availability.cause(job.repository_id);
    if (cause.empty()) continue;
    if (job.state == JobState::finalizing) {
      io::log(io::LogLevel::warning, "job {} of VM {} is published when repository {} is available",
              job.id, job.vm_name, job.repository_id);
      continue;
    }
    core.catalogue->jobs.end(job.id, JobState::failed, kRestarted, core.now());
    io::log(io::LogLevel::warning, "job {} of VM {} failed: {}", job.id, job.vm_name, kRestarted);
  }
}

}  // namespace engine
