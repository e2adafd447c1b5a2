// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "engine/jobs/end_job.h"
#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/repository_files.h"
#include "engine/repository/storage.h"
#include "engine/values/layout.h"
#include "engine/values/log_fields.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr const char* kRestarted = "server restarted during backup";

io::Task<void> fail_unfinished(Core& core, Job job, std::string cause) {
  bool kept = false;
  if (job.keep_partial) kept = co_await can_be_resumed(core.files(), job);
  core.catalogue->jobs.end(job.id, JobState::failed, cause, core.now(), kept);
  io::log(io::LogLevel::error, about(job, cause), "job {} of VM {} failed: {}{}", job.id,
          job.vm_name, cause, kept ? "; what has arrived is kept" : "");
  core.tell_end(job, JobState::failed, cause, FailureCode::restart);
  if (!kept) co_await discard_images(core, job);
}

/// VMs whose links are there; a VM without a point has none, unless they could not be removed.
io::Task<std::set<std::string>> contexts_with_links(Catalogue& catalogue, io::FileSystem& files,
                                                    std::string directory) {
  std::set<std::string> links;
  const std::vector<io::DirectoryEntry> entries = co_await files.list(directory);
  for (const io::DirectoryEntry& entry : entries) {
    if (entry.kind == io::FileKind::symlink) links.insert(entry.name);
  }
  std::set<std::string> context_ids;
  if (links.empty()) co_return context_ids;
  for (const Vm& vm : catalogue.vms.list()) {
    for (const VmDisk& disk : vm.disks) {
      if (links.contains(disk_link_name(vm.safe_name, disk.key))) context_ids.insert(vm.context_id);
    }
  }
  co_return context_ids;
}

/// A crash between a transaction and the files that are derived from it.
io::Task<void> repair_derived_files(Core& core, Repository repository) {
  std::set<std::string> context_ids =
      co_await contexts_with_links(*core.catalogue, core.files(), repository.directory);
  for (const Point& point : core.catalogue->points.list(repository.id)) {
    context_ids.insert(point.context_id);
  }
  for (const std::string& context_id : context_ids) {
    co_await repair_context_files(core, context_id, repository.id);
  }
}

/// Whether it has ended and only the catalogue does not know it yet.
bool waits_for_its_end(const std::vector<UnrecordedEnd>& ends, const std::string& job_id) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](const UnrecordedEnd& end) { return end.job_id == job_id; });
}

/// Jobs that no life before this one has ended, of this repository.
io::Task<void> settle_jobs(Core& core, std::string repository_id) {
  const std::vector<Job> active = core.catalogue->jobs.active_jobs();
  for (const Job& listed : active) {
    if (listed.repository_id != repository_id) continue;
    // As it is now: those before it took their time, and others may have ended it meanwhile.
    std::optional<Job> job = core.catalogue->jobs.find(listed.id);
    if (!job || !is_active(job->state) || core.jobs.find(job->id)) continue;
    if (job->state == JobState::finalizing) {
      co_await core.unfinished.attempt(core, job->id);
    } else if (!waits_for_its_end(core.unrecorded_ends, job->id)) {
      co_await fail_unfinished(core, std::move(*job), kRestarted);
    }
  }
}

bool lies_in(const Job& job, const std::string& directory) {
  return std::all_of(job.disks.begin(), job.disks.end(), [&](const JobDisk& disk) {
    return disk.image_path.starts_with(directory + "/");
  });
}

/// What was kept while nobody could see the files (fail_unreachable_jobs), or was removed since.
/// What lies in a former directory, which may be away, proves nothing.
io::Task<void> settle_kept(Core& core, Repository repository) {
  const std::vector<Job> kept = core.catalogue->jobs.kept_jobs();
  for (const Job& job : kept) {
    if (job.repository_id != repository.id || !lies_in(job, repository.directory)) continue;
    try {
      const bool is_there = co_await can_be_resumed(core.files(), job);
      if (!is_there) co_await drop_kept(core, job, "not all of it is there");
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, about(job, failure.what()),
              "job {}: what has arrived cannot be looked at: {}", job.id, failure.what());
    }
  }
}

io::Task<void> finish_deletions(Core& core, std::string repository_id) {
  std::vector<Job> deleting = core.catalogue->jobs.deleting_jobs();
  for (const Job& job : deleting) {
    if (job.repository_id == repository_id) co_await core.unfinished.attempt(core, job.id);
  }
}

bool is_written_to(const ActiveJobs& jobs, const std::string& repository_id) {
  for (const auto& job : jobs.all()) {
    if (job->row.repository_id == repository_id) return true;
  }
  return false;
}

/// What is unpublished and what is in the way of readers; nothing that matters is lost without it.
io::Task<void> tidy(Core& core, Repository repository) {
  try {
    co_await remove_orphans(core, repository);
    co_await repair_derived_files(core, repository);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "repository {} could not be scanned: {}", repository.id,
            failure.what());
  }
}

}  // namespace

io::Task<void> recover_repository(Core& core, Repository repository) {
  co_await settle_jobs(core, repository.id);
  co_await settle_kept(core, repository);
  co_await finish_deletions(core, repository.id);
  // A job that has outlived the repository's absence writes files that look like strays, and what a
  // job leaves whose end is not recorded yet belongs to nobody by the catalogue.
  if (is_written_to(core.jobs, repository.id) || !core.unrecorded_ends.empty()) co_return;
  co_await tidy(core, std::move(repository));
}

void fail_unreachable_jobs(Core& core) {
  for (const Job& job : core.catalogue->jobs.active_jobs()) {
    const std::string cause = core.availability.cause(job.repository_id);
    if (cause.empty()) continue;
    if (job.state == JobState::finalizing) {
      io::log(io::LogLevel::warning, about(job, cause),
              "job {} of VM {} is published when repository {} is available", job.id, job.vm_name,
              job.repository_id);
      continue;
    }
    // Kept unseen; settle_kept looks at it when the repository is back.
    core.catalogue->jobs.end(job.id, JobState::failed, kRestarted, core.now(), job.keep_partial);
    io::log(io::LogLevel::error, about(job, kRestarted), "job {} of VM {} failed: {}", job.id,
            job.vm_name, kRestarted);
    core.tell_end(job, JobState::failed, kRestarted, FailureCode::restart);
  }
}

}  // namespace engine
