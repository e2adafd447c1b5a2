#include "engine/end_job.h"

#include <fmt/format.h>

#include <array>
#include <system_error>

#include "engine/refusal.h"
#include "engine/repository_files.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr std::array<std::string_view, 3> kImageSuffixes = {".partial", ".json", ".sums"};

/// Waits for the connections of one ended export.
io::Task<void> retire(std::unique_ptr<Ingest> ingest) { co_await ingest->retire(); }

/// Retires when nobody lingers, so that a port is free when the answer leaves; else later.
io::Task<void> retire_now_or_later(Core& core, std::unique_ptr<Ingest> ingest) {
  const bool lingering = ingest->connected();
  if (lingering) {
    core.background.spawn(retire(std::move(ingest)));
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

/// A catalogue that cannot be written now is written later (record_late_ends), or the next start
/// finds the job.
void record_end(Core& core, const ActiveJob& job, JobState state, const std::string& cause) {
  try {
    for (const JobDisk& disk : job.row.disks) {
      if (const Ingest* const ingest = job.ingest(disk)) {
        core.catalogue->jobs.set_counters(job.row.id, disk.index, ingest->counters());
      }
    }
    core.catalogue->jobs.end(job.row.id, state, cause, core.now());
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "job {}: its end cannot be recorded: {}", job.row.id,
            failure.what());
    core.late_ends.push_back({job.row.id, state, cause, core.now()});
  }
}

io::Task<void> quarantine_image(Core& core, std::string image_path, std::string directory) {
  io::FileSystem& files = core.files();
  co_await files.make_directories(directory);
  const std::string name = image_path.substr(io::parent_path(image_path).size() + 1);
  for (const std::string_view suffix : {".partial", ".json", ""}) {
    const std::string from = image_path + std::string(suffix);
    const auto status = co_await files.status(from, false);
    if (!status) continue;
    const std::string to = directory + "/" + name + std::string(suffix);
    co_await files.rename(from, to, true);
  }
  co_await files.sync_directory(directory);
}

/// chain.json may name points that were not published after all.
io::Task<void> restore_chain_files(Core& core, Job job) {
  for (const JobDisk& disk : job.disks) {
    try {
      co_await refresh_chain_file(core, job.context_id, job.repository_id, disk.index);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "job {}: chain.json of disk {} cannot be restored: {}", job.id,
              disk.index, failure.what());
    }
  }
}

}  // namespace

io::Task<uint64_t> remove_image(io::FileSystem& files, std::string image_path) {
  uint64_t freed = 0;
  bool removed = false;
  const auto image = co_await files.status(image_path, false);
  if (image) {
    freed += image->allocated_bytes;
    removed = true;
    co_await files.remove(image_path);
  }
  for (const std::string_view suffix : kImageSuffixes) {
    const std::string path = image_path + std::string(suffix);
    const auto status = co_await files.status(path, false);
    if (!status) continue;
    freed += status->allocated_bytes;
    removed = true;
    co_await files.remove(path);
  }
  if (removed) {
    const std::string directory = io::parent_path(image_path);
    co_await files.sync_directory(directory);
  }
  co_return freed;
}

io::Task<void> remove_empty_directories(io::FileSystem& files, std::string image_path) {
  const std::string disk_directory = io::parent_path(image_path);
  const std::string context_directory = io::parent_path(disk_directory);
  co_await remove_directory_if_empty(files, disk_directory);
  const auto status = co_await files.status(context_directory, false);
  if (!status) co_return;
  const auto entries = co_await files.list(context_directory);
  if (entries.size() == 1 && entries.front().name == "vm.json") {
    const std::string vm_file = context_directory + "/vm.json";
    co_await files.remove(vm_file);
  }
  co_await remove_directory_if_empty(files, context_directory);
}

io::Task<void> discard_images(Core& core, Job job) {
  io::FileSystem& files = core.files();
  for (const JobDisk& disk : job.disks) {
    try {
      if (core.options.failed_images == FailedImages::quarantine) {
        const std::string context = io::parent_path(io::parent_path(disk.image_path));
        std::string into = fmt::format("{}/.quarantine/{}", io::parent_path(context), job.id);
        co_await quarantine_image(core, disk.image_path, std::move(into));
      }
      co_await remove_image(files, disk.image_path);
      co_await remove_empty_directories(files, disk.image_path);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "job {}: image {} cannot be removed: {}", job.id,
              disk.image_path, failure.what());
    }
  }
}

io::Task<void> close_exports(Core& core, ActiveJob& job) {
  for (const auto& ingest : job.ingests) {
    if (!ingest) continue;
    try {
      co_await ingest->close();
      co_await core.ports.close(ingest->exported());
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "job {}: an export cannot be closed: {}", job.row.id,
              failure.what());
    }
  }
}

io::Task<void> release_exports(Core& core, std::shared_ptr<ActiveJob> job) {
  for (auto& ingest : job->ingests) {
    if (!ingest) continue;
    core.tally.note_export(ingest->traffic(), ingest->counters());
    co_await retire_now_or_later(core, std::move(ingest));
  }
}

io::Task<void> end_job(Core& core, std::shared_ptr<ActiveJob> job, JobState failed_or_cancelled,
                       std::string cause) {
  if (!is_active(job->row.state)) co_return;
  const bool was_decided = job->row.state == JobState::finalizing;
  // A decision is taken back before anything else: a restart must not publish what failed here.
  // Otherwise the row comes last, so that whoever reads `failed` finds everything gone.
  if (was_decided) record_end(core, *job, failed_or_cancelled, cause);
  for (const auto& ingest : job->ingests) {
    if (ingest) co_await ingest->close();
  }
  co_await discard_images(core, job->row);
  if (was_decided) co_await restore_chain_files(core, job->row);
  co_await close_exports(core, *job);
  if (!was_decided) record_end(core, *job, failed_or_cancelled, cause);
  job->row.state = failed_or_cancelled;
  job->row.error_message = cause;
  ++core.tally.backups[{std::string(to_text(failed_or_cancelled)), job->row.type}];
  core.jobs.remove(job->row.id);
  io::log(io::LogLevel::warning, "job {} of VM {} {}: {}", job->row.id, job->row.vm_name,
          to_text(failed_or_cancelled), cause);
  co_await release_exports(core, job);
}

void record_late_ends(Core& core) {
  while (!core.late_ends.empty()) {
    const LateEnd& end = core.late_ends.back();
    core.catalogue->jobs.end(end.job_id, end.state, end.cause, end.at);
    core.late_ends.pop_back();
  }
}

io::Task<void> fail_job(Core& core, std::shared_ptr<ActiveJob> job, std::string cause) {
  const io::Grant step = co_await job->steps.lock();
  co_await end_job(core, job, JobState::failed, cause);
}

io::Task<void> cancel_job(Core& core, std::string backup_id, std::string reason) {
  if (reason.empty()) reason = "cancelled by request";
  const auto job = core.jobs.find(backup_id);
  if (job) {
    const io::Grant step = co_await job->steps.lock();
    if (is_active(job->row.state)) {
      co_await end_job(core, job, JobState::cancelled, reason);
      co_return;
    }
  }
  const auto row = core.catalogue->jobs.find(backup_id);
  if (!row || row->deleting) throw refusals::backup_not_found(backup_id);
  if (row->state == JobState::cancelled) co_return;
  throw refusals::job_not_running(
      backup_id, row->error_message.empty()
                     ? std::string(to_text(row->state))
                     : fmt::format("{}: {}", to_text(row->state), row->error_message));
}

}  // namespace engine
