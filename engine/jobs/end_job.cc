// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/end_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/repository_files.h"
#include "engine/repository/own_image.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/values/log_fields.h"
#include "engine/values/refusal.h"
#include "io/log.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

/// Waits for the connections of one ended export.
io::Task<void> retire(std::unique_ptr<Ingest> ingest) { co_await ingest->retire(); }

/// Retires when no connection lingers, so that a port is free when the answer leaves; else later.
io::Task<void> retire_now_or_later(io::TaskScope& background, std::unique_ptr<Ingest> ingest) {
  const bool lingering = ingest->connected();
  if (lingering) {
    background.spawn(retire(std::move(ingest)));
  } else {
    co_await retire(std::move(ingest));
  }
}

io::Task<void> remove_directory_if_empty(io::FileSystem& files, std::string directory) {
  const auto status = co_await files.status(directory, false);
  if (!status || status->kind != io::FileKind::directory) co_return;
  const auto entries = co_await files.list(directory);
  if (entries.empty()) co_await files.remove_directory(directory);
}

/// A catalogue that cannot be written now is written later (record_missing_ends), or the next start
/// finds the job.
void record_end(Core& core, const Job& row, const std::string& cause) {
  try {
    for (const JobDisk& disk : row.disks) {
      core.catalogue->jobs.set_counters(row.id, disk.index, disk.counters);
    }
    core.catalogue->jobs.end(row.id, row.state, cause, core.now(), row.kept);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, about(row, failure.what()),
            "job {}: its end cannot be recorded: {}", row.id, failure.what());
    core.unrecorded_ends.push_back({row.id, row.state, cause, core.now(), row.kept});
  }
}

/// An incomplete manifest does not say whose it is: it is the job's unless an image with its name
/// exists.
io::Task<bool> is_own_manifest(io::FileSystem& files, JobDisk disk) {
  const std::string path = sums_path(disk.image_path);
  const NamedFile found = co_await look_at_manifest(files, path, disk.image_uuid);
  if (found != NamedFile::unreadable) co_return found == NamedFile::ours;
  const auto image = co_await files.status(disk.image_path, false);
  co_return !image;
}

/// The files that the job made for one disk. Until the decision that is the unpublished image, and
/// the manifest of a sealed one.
io::Task<std::vector<std::string>> files_of(io::FileSystem& files, JobDisk disk,
                                            std::optional<std::string> decided_sidecar) {
  std::vector<std::string> made;
  const NamedFile published = co_await look_at_image(files, disk.image_path, disk.image_uuid);
  // Published by a later life than this catalogue knows of: it is an older copy. The image, its
  // manifest and its sidecar wait for `varve rebuild`.
  if (!decided_sidecar && published == NamedFile::ours) co_return made;
  const std::string partial = partial_path(disk.image_path);
  const NamedFile unpublished = co_await look_at_image(files, partial, disk.image_uuid);
  // The name was free when the job began to make the image, so one that is not ready is the job's.
  if (unpublished == NamedFile::ours || unpublished == NamedFile::unreadable) {
    made.push_back(partial);
  }
  if (unpublished != NamedFile::of_another) {
    const std::string arrived = arrived_path(disk.image_path);
    const auto notes = co_await files.status(arrived, false);
    if (notes) made.push_back(arrived);
  }
  if (decided_sidecar) {
    bool is_ours = published == NamedFile::ours;
    PLANTED_BUG(delete_without_identity, is_ours = true)
    if (is_ours) made.push_back(disk.image_path);
  }
  const bool has_manifest = co_await is_own_manifest(files, disk);
  if (has_manifest) made.insert(made.begin(), sums_path(disk.image_path));
  if (!decided_sidecar) co_return made;
  const std::string sidecar = sidecar_path(disk.image_path);
  const auto written = co_await files.status(sidecar, false);
  if (written && written->kind == io::FileKind::file) {
    const std::string text = co_await io::read_text(files, sidecar);
    if (text == *decided_sidecar) made.push_back(sidecar);
  }
  co_return made;
}

io::Task<void> move_into(io::FileSystem& files, std::string path, std::string directory) {
  co_await files.make_directories(directory);
  const std::string to = directory + path.substr(path.rfind('/'));
  co_await files.rename(path, to, true);
  co_await files.sync_directory(directory);
}

io::Task<void> discard_image(io::FileSystem& files, FailedImages what_to_do, JobDisk disk,
                             std::optional<std::string> decided_sidecar) {
  const std::vector<std::string> made = co_await files_of(files, disk, decided_sidecar);
  const std::string directory = io::parent_path(disk.image_path);
  const std::string repository = io::parent_path(io::parent_path(directory));
  const std::string quarantine = quarantine_directory(repository, disk.job_id);
  for (const std::string& path : made) {
    if (what_to_do == FailedImages::quarantine) {
      co_await move_into(files, path, quarantine);
    } else {
      co_await files.remove(path);
    }
  }
  if (!made.empty()) co_await files.sync_directory(directory);
}

}  // namespace

io::Task<uint64_t> remove_point(io::FileSystem& files, JobDisk disk) {
  const NamedFile image = co_await look_at_image(files, disk.image_path, disk.image_uuid);
  if (image == NamedFile::of_another) {
    io::log(io::LogLevel::error, "{} is not the image that job {} has written; it stays",
            disk.image_path, disk.job_id);
    co_return 0;
  }
  uint64_t freed = 0;
  const std::array names = {disk.image_path, sidecar_path(disk.image_path),
                            sums_path(disk.image_path), proof_path(disk.image_path)};
  for (const std::string& path : names) {
    const auto status = co_await files.status(path, false);
    if (!status) continue;
    freed += status->allocated_bytes;
    co_await files.remove(path);
  }
  // Always: a life before this one may have removed them and died before the sync, and once the row
  // is gone nobody looks again.
  const std::string directory = io::parent_path(disk.image_path);
  const auto there = co_await files.status(directory);
  if (there) co_await files.sync_directory(directory);
  co_return freed;
}

io::Task<void> remove_empty_directories(io::FileSystem& files, Job job) {
  if (job.disks.empty()) co_return;
  const std::string context = io::parent_path(io::parent_path(job.disks.front().image_path));
  try {
    for (const JobDisk& disk : job.disks) {
      const std::string directory = io::parent_path(disk.image_path);
      co_await remove_directory_if_empty(files, directory);
    }
    const auto status = co_await files.status(context, false);
    if (!status) co_return;
    const auto entries = co_await files.list(context);
    if (entries.size() == 1 && entries.front().name == kVmFileName) {
      const std::string vm_file = fmt::format("{}/{}", context, kVmFileName);
      co_await files.remove(vm_file);
    }
    co_await remove_directory_if_empty(files, context);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, about(job, failure.what()),
            "job {}: empty directories stay in {}: {}", job.id, context, failure.what());
  }
}

io::Task<void> discard_images(Core& core, Job job) {
  co_await discard_decided_images(core, std::move(job), {});
}

io::Task<void> discard_decided_images(Core& core, Job job, std::vector<DecidedImage> decided) {
  const io::Grant turn = co_await core.turns.take(job.repository_id, job.context_id);
  for (const JobDisk& disk : job.disks) {
    std::optional<std::string> sidecar;
    for (const DecidedImage& image : decided) {
      if (image.disk_index == disk.index) sidecar = image.sidecar;
    }
    try {
      co_await discard_image(core.files(), core.options.failed_images, disk, sidecar);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, about(job, disk.index, failure.what()),
              "job {}: image {} cannot be removed: {}", job.id, disk.image_path, failure.what());
    }
  }
  co_await remove_empty_directories(core.files(), std::move(job));
}

io::Task<void> close_exports(Ports& ports, ActiveJob& job) {
  for (const auto& ingest : job.ingests) {
    if (!ingest) continue;
    try {
      co_await ingest->close();
      co_await ports.close(ingest->exported());
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, about(job.row, failure.what()),
              "job {}: an export cannot be closed: {}", job.row.id, failure.what());
    }
  }
}

io::Task<void> release_exports(Tally& tally, io::TaskScope& background,
                               std::shared_ptr<ActiveJob> job, Ingest::Leaving leaving) {
  // From the job to the tally at once: what is asked between two disks finds each in one of them.
  std::vector<std::unique_ptr<Ingest>> ended;
  ended.reserve(job->ingests.size());
  for (auto& ingest : job->ingests) {
    if (!ingest) continue;
    tally.note_export(ingest->traffic(), ingest->counters());
    ended.push_back(std::move(ingest));
  }
  for (auto& ingest : ended) {
    if (leaving == Ingest::Leaving::what_has_arrived) {
      co_await ingest->retire(leaving);
    } else {
      co_await retire_now_or_later(background, std::move(ingest));
    }
  }
}

namespace {

/// A disk that never came to its image may have the name of a file that is not the job's, unless it
/// was to go on with that.
io::Task<void> discard_what_was_made(Core& core, const ActiveJob& job) {
  Job made = job.row;
  made.disks.clear();
  for (const JobDisk& disk : job.row.disks) {
    if (job.ingest(disk) || !job.row.resumes.empty()) made.disks.push_back(disk);
  }
  co_await discard_images(core, std::move(made));
  const io::Grant turn = co_await core.turns.take(job.row.repository_id, job.row.context_id);
  co_await remove_empty_directories(core.files(), job.row);
}

}  // namespace

namespace {

/// A start that failed has nothing to keep, unless it was to go on with what an earlier one left.
bool has_something(const ActiveJob& job) {
  if (!job.row.resumes.empty()) return true;
  return std::ranges::any_of(job.row.disks,
                             [](const JobDisk& disk) { return disk.counters.covered_bytes > 0; });
}

}  // namespace

io::Task<void> end_job(Core& core, std::shared_ptr<ActiveJob> job, JobState failed_or_cancelled,
                       std::string cause, std::optional<FailureCode> code,
                       Ingest::Leaving leaving) {
  if (!is_active(job->row.state) || job->row.state == JobState::finalizing) co_return;
  for (const auto& ingest : job->ingests) {
    if (ingest) co_await ingest->close();
  }
  for (JobDisk& disk : job->row.disks) {
    if (const Ingest* const ingest = job->ingest(disk)) disk.counters = ingest->counters();
  }
  const bool kept = leaving == Ingest::Leaving::what_has_arrived && job->row.keep_partial &&
                    failed_or_cancelled == JobState::failed && has_something(*job);
  if (!kept) co_await discard_what_was_made(core, *job);
  co_await close_exports(core.ports, *job);
  if (kept) {
    co_await release_exports(core.tally, core.background, job, Ingest::Leaving::what_has_arrived);
  }
  // The row comes last, so that whoever reads `failed` finds everything gone, or at rest.
  job->row.state = failed_or_cancelled;
  job->row.error_message = cause;
  job->row.kept = kept;
  record_end(core, job->row, cause);
  ++core.tally.backups[{std::string(to_text(failed_or_cancelled)), job->row.type}];
  core.jobs.remove(job->row.id);
  // Who cancels a job knows of it.
  const bool failed = failed_or_cancelled == JobState::failed;
  io::log(failed ? io::LogLevel::error : io::LogLevel::info, about(job->row, cause),
          "job {} of VM {} {}: {}", job->row.id, job->row.vm_name, to_text(failed_or_cancelled),
          cause);
  core.tell_end(job->row, failed_or_cancelled, cause, code);
  co_await release_exports(core.tally, core.background, job);
}

void record_missing_ends(Catalogue& catalogue, std::vector<UnrecordedEnd>& unrecorded) {
  while (!unrecorded.empty()) {
    const UnrecordedEnd& end = unrecorded.back();
    catalogue.jobs.end(end.job_id, end.state, end.cause, end.at, end.kept);
    unrecorded.pop_back();
  }
}

io::Task<void> fail_job(Core& core, std::shared_ptr<ActiveJob> job, FailureCode code,
                        std::string cause, Ingest::Leaving leaving) {
  const io::Grant step = co_await job->steps.lock();
  co_await end_job(core, job, JobState::failed, cause, code, leaving);
}

io::Task<void> cancel_job(Core& core, std::string backup_id, std::string reason) {
  if (reason.empty()) reason = "cancelled by request";
  const auto job = core.jobs.find(backup_id);
  if (job) {
    const io::Grant step = co_await job->steps.lock();
    if (is_active(job->row.state) && job->row.state != JobState::finalizing) {
      co_await end_job(core, job, JobState::cancelled, reason, std::nullopt);
      co_return;
    }
  }
  const auto row = core.catalogue->jobs.find(backup_id);
  if (!row || row->deleting) throw refusals::backup_not_found(backup_id);
  if (row->state == JobState::cancelled) co_return;
  if (row->kept) {  // it has failed already; what it left is what there is to cancel
    co_await drop_kept(core, *row, "it was cancelled");
    co_return;
  }
  throw refusals::job_not_running(
      backup_id, row->error_message.empty()
                     ? std::string(to_text(row->state))
                     : fmt::format("{}: {}", to_text(row->state), row->error_message));
}

}  // namespace engine
