// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/kept_transfers.h"

#include <fmt/format.h>

#include "engine/jobs/end_job.h"
#include "engine/repository/own_image.h"
#include "engine/values/layout.h"
#include "engine/values/log_fields.h"
#include "engine/values/refusal.h"
#include "io/log.h"

namespace engine {
namespace {

/// Why a job that ended leaves nothing to go on with.
std::string why_nothing_is_left(const Job& job) {
  if (is_active(job.state)) return "is still running";
  if (job.state == JobState::completed) return "is complete";
  if (!job.keep_partial) return "was not asked to keep what has arrived (keep_partial)";
  if (job.state == JobState::cancelled) return "was cancelled, so nothing of it is left";
  return "left nothing that is still there: it was resumed, or made way for another backup";
}

}  // namespace

io::Task<bool> can_be_resumed(io::FileSystem& files, Job job) {
  for (const JobDisk& disk : job.disks) {
    const std::string partial = partial_path(disk.image_path);
    const NamedFile image = co_await look_at_image(files, partial, disk.image_uuid);
    const auto notes = co_await files.status(arrived_path(disk.image_path), false);
    if (image != NamedFile::ours || !notes || disk.image_uuid.empty()) co_return false;
  }
  co_return !job.disks.empty();
}

io::Task<Job> require_resumable(Core& core, std::string job_id) {
  std::optional<Job> job = core.catalogue->jobs.find(job_id);
  if (!job || job->deleting) throw refusals::backup_not_found(job_id);
  if (!job->kept) throw refusals::not_resumable(job_id, why_nothing_is_left(*job));
  const std::string cause = core.availability.cause(job->repository_id);
  if (!cause.empty()) throw refusals::repository_unavailable(job->repository_id, cause);
  const bool is_there = co_await can_be_resumed(core.files(), *job);
  if (!is_there) {
    throw refusals::not_resumable(job_id, "left images that are not there, or are other files");
  }
  co_return std::move(*job);
}

io::Task<void> drop_kept(Core& core, Job job, std::string why) {
  // Decided first: what a crash leaves then belongs to nobody and is swept at the next start.
  if (!core.catalogue->jobs.forget_kept(job.id)) co_return;
  io::log(io::LogLevel::info, about(job), "job {}: what has arrived is removed, because {}", job.id,
          why);
  co_await discard_images(core, job);
}

io::Task<bool> drop_kept_of(Core& core, std::string repository_id, std::string why,
                            std::string except, std::string context_id) {
  bool any = false;
  const std::vector<Job> kept = core.catalogue->jobs.kept_jobs();
  for (const Job& job : kept) {
    if (job.repository_id != repository_id || job.id == except) continue;
    if (!context_id.empty() && job.context_id != context_id) continue;
    co_await drop_kept(core, job, why);
    any = true;
  }
  co_return any;
}

io::Task<void> drop_expired(Core& core) {
  const io::Duration limit = core.options.keep_partial_for;
  if (limit <= io::Duration::zero()) co_return;
  try {
    const std::vector<Job> kept = core.catalogue->jobs.kept_jobs();
    for (const Job& job : kept) {
      const io::Duration age = core.now() - job.completed_at.value_or(job.created_at);
      if (age >= limit) co_await drop_kept(core, job, "nobody came for it");
    }
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "what failed jobs have left cannot be removed: {}",
            failure.what());
  }
}

}  // namespace engine
