// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/complete_job.h"

#include <fmt/format.h>

#include <chrono>
#include <system_error>

#include "engine/jobs/end_job.h"
#include "engine/jobs/publish.h"
#include "engine/jobs/watch.h"
#include "engine/values/log_fields.h"
#include "engine/values/refusal.h"
#include "engine/values/signals.h"
#include "engine/values/warnings.h"
#include "io/log.h"

namespace engine {
namespace {

DiskSnapshot snapshot_of(const JobDisk& disk) {
  return {.index = disk.index,
          .key = disk.key,
          .sealed = is_sealed(disk.state) || disk.state == DiskState::sealing,
          .change_id = disk.change_id,
          .parent_change_id = disk.parent_change_id,
          .parent_job_id = disk.parent_job_id};
}

CompletedDisk answer_of(const Job& job, const JobDisk& disk) {
  CompletedDisk answer{.disk_index = disk.index,
                       .job_state = job.state,
                       .disks_total = static_cast<uint32_t>(job.disks.size())};
  for (const JobDisk& other : job.disks) answer.disks_completed += is_sealed(other.state);
  return answer;
}

std::string state_and_cause(const Job& job) {
  if (job.error_message.empty()) return std::string(to_text(job.state));
  return fmt::format("{}: {}", to_text(job.state), job.error_message);
}

/// The disk that a request means; throws when the job has no such disk.
const JobDisk& choose_disk(const Job& job, const std::vector<DiskSnapshot>& disks,
                           const CompleteDisk& request) {
  std::optional<uint32_t> index = request.disk_id;
  if (!index) index = select_completed_disk(disks, request.change_id);
  if (!index) {
    throw refusals::change_id_conflict(
        job.id, "every disk of this job is completed with another change id");
  }
  for (const JobDisk& disk : job.disks) {
    if (disk.index == *index) return disk;
  }
  throw refusals::job_not_found(job.id, fmt::format("job has no disk {}", *index));
}

/// A disk that is sealed already: the same id is a repeat, another one a mistake.
CompletedDisk answer_repeat(const Job& job, const JobDisk& disk, const CompleteDisk& request) {
  if (disk.change_id == request.change_id) {
    if (job.state == JobState::finalizing) {
      throw refusals::backup_being_published(job.id, job.error_message);
    }
    return answer_of(job, disk);
  }
  throw refusals::change_id_conflict(
      job.id, fmt::format("disk {} was completed with change id '{}'", disk.index, disk.change_id));
}

CompletedDisk complete_ended(Catalogue& catalogue, const CompleteDisk& request) {
  const auto job = catalogue.jobs.find(request.backup_id);
  if (!job || job->deleting) {
    throw refusals::job_not_found(request.backup_id,
                                  fmt::format("no backup '{}'", request.backup_id));
  }
  if (job->state != JobState::completed && job->state != JobState::finalizing) {
    throw refusals::job_not_running(job->id, state_and_cause(*job));
  }
  return answer_repeat(*job, choose_disk(*job, disk_snapshots(*job), request), request);
}

std::optional<uint64_t> previous_full_stored(Catalogue& catalogue, const Job& job,
                                             uint32_t disk_index) {
  const auto chain =
      catalogue.points.chain(job.context_id, job.repository_id, disk_index, std::nullopt);
  if (!chain || chain->points.empty()) return std::nullopt;
  return chain->points.front().bytes_stored;
}

io::Task<void> seal_disk(Core& core, std::shared_ptr<ActiveJob> job, JobDisk& disk,
                         const CompleteDisk& request) {
  const io::SteadyTime begun = core.steady_now();
  core.catalogue->jobs.set_sealing(job->row.id, disk.index);
  disk.state = DiskState::sealing;
  core.parts.reached("sealing");
  const SealedImage sealed = co_await job->ingest(disk)->seal();
  core.parts.reached("sealed");
  JobDisk done = disk;
  done.change_id = request.change_id;
  done.counters = sealed.counters;
  done.file_bytes = sealed.file_bytes;
  done.allocated_bytes = sealed.allocated_bytes;
  done.sums_sha256 = sealed.sums_sha256;
  done.parent_root = sealed.parent_root;
  const std::vector<Point> history = core.catalogue->points.history(
      job->row.context_id, job->row.repository_id, disk.index, job->row.id, kHistoryPoints);
  SealRecord record{
      .change_id = request.change_id,
      .counters = done.counters,
      .file_bytes = sealed.file_bytes,
      .allocated_bytes = sealed.allocated_bytes,
      .sums_sha256 = sealed.sums_sha256,
      .parent_root = sealed.parent_root,
      .warnings = sealed_warnings(done, previous_full_stored(*core.catalogue, job->row, disk.index),
                                  job->change_id_asked)};
  for (Warning& flag : signal_warnings(done, sealed.comparison, history)) {
    ++core.tally.flags[flag.code];
    io::log(io::LogLevel::warning, about(job->row, disk.index), "job {} of VM {}: {}", job->row.id,
            job->row.vm_name, flag.message);
    record.warnings.push_back(std::move(flag));
  }
  core.catalogue->jobs.set_sealed(job->row.id, disk.index, record, core.now());
  done.state = DiskState::sealed;
  done.completed_at = core.now();
  disk = std::move(done);
  job->row.warnings.insert(job->row.warnings.end(), record.warnings.begin(), record.warnings.end());
  job->waiting_since = core.steady_now();
  const std::chrono::duration<double> seconds = core.steady_now() - begun;
  core.tally.note_seal(seconds.count());
  io::log(io::LogLevel::info, about(job->row, disk.index),
          "job {}: disk {} sealed in {:.3f} s ({} received, {} stored), change id {}", job->row.id,
          disk.index, seconds.count(), io::bytes_text(disk.counters.bytes_received),
          io::bytes_text(disk.counters.bytes_stored), disk.change_id);
}

/// A storage that failed is not trusted with what it has taken. What has not arrived as it was sent
/// can come again.
Ingest::Leaving leaving_after(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error&) {
    return Ingest::Leaving::nothing;
  } catch (...) {
    return Ingest::Leaving::what_has_arrived;
  }
}

/// The caller holds job->steps, and the job is active.
io::Task<CompletedDisk> complete_active(Core& core, std::shared_ptr<ActiveJob> job,
                                        const CompleteDisk& request) {
  const JobDisk& chosen = choose_disk(job->row, disk_snapshots(*job), request);
  JobDisk& disk = *job->disk(chosen.index);
  if (is_sealed(disk.state)) co_return answer_repeat(job->row, disk, request);
  const Ingest* const ingest = job->ingest(disk);
  if (!ingest || !ingest->ever_connected()) {
    throw refusals::disk_never_connected(
        job->row.id, fmt::format("no NBD connection was ever made for disk {}", disk.index));
  }
  note_connection(*core.catalogue, *job, disk.index);
  std::exception_ptr failure;
  try {
    co_await seal_disk(core, job, disk, request);
    if (job->disks_sealed() == job->row.disks.size()) co_await publish_job(core, job);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    const std::string cause = fmt::format("disk {}: {}", disk.index, text_of(failure));
    co_await end_job(core, job, JobState::failed, cause, FailureCode::storage,
                     leaving_after(failure));
    throw refusals::complete_failed(job->row.id, cause);
  }
  if (job->row.state == JobState::running || job->row.state == JobState::preparing) {
    co_return answer_of(job->row, disk);
  }
  core.background.spawn(retire_job(core, job));
  if (job->row.state == JobState::failed) {
    throw refusals::complete_failed(job->row.id, job->row.error_message);
  }
  co_return answer_repeat(job->row, disk, request);
}

}  // namespace

std::vector<DiskSnapshot> disk_snapshots(const Job& job) {
  std::vector<DiskSnapshot> disks;
  for (const JobDisk& disk : job.disks) disks.push_back(snapshot_of(disk));
  return disks;
}

std::vector<DiskSnapshot> disk_snapshots(const ActiveJob& job) {
  std::vector<DiskSnapshot> disks = disk_snapshots(job.row);
  for (size_t at = 0; at < disks.size(); ++at) {
    const Ingest* const ingest = job.ingests[at].get();
    if (!ingest) continue;
    disks[at].connected = ingest->connected();
    disks[at].connect_sequence = ingest->connection_order();
  }
  return disks;
}

io::Task<CompletedDisk> complete_job(Core& core, CompleteDisk request) {
  if (const auto job = core.jobs.find(request.backup_id)) {
    const io::Grant step = co_await job->steps.lock();
    if (is_active(job->row.state)) co_return co_await complete_active(core, job, request);
  }
  co_return complete_ended(*core.catalogue, request);
}

}  // namespace engine
