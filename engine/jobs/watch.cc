// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/jobs/end_job.h"
#include "engine/jobs/job_view.h"
#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/space_watch.h"
#include "engine/values/log_fields.h"
#include "io/log.h"

namespace engine {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;

/// A timeout is noticed after at most this part of it.
constexpr int kLooksPerTimeout = 4;
constexpr io::Duration kLookAtLeastEvery = milliseconds(10);

io::Duration watch_interval(const EngineOptions& options) {
  const JobTimeouts& timeouts = options.timeouts;
  io::Duration interval = std::min(options.watch_interval, options.sample_interval);
  for (const io::Duration timeout : {timeouts.first_connect, timeouts.disconnect_grace,
                                     timeouts.stall, timeouts.nbd_idle, timeouts.max_duration}) {
    if (timeout > io::Duration::zero()) interval = std::min(interval, timeout / kLooksPerTimeout);
  }
  return std::max(interval, kLookAtLeastEvery);
}

bool is_over(io::Duration limit, io::Duration passed) {
  return limit > io::Duration::zero() && passed >= limit;
}

std::string missing_connection(io::Duration limit, io::SteadyTime now, const ActiveJob& job) {
  if (!job.waiting_since) return "";
  for (const JobDisk& disk : job.row.disks) {
    const Ingest* const ingest = job.ingest(disk);
    if (!is_sealed(disk.state) && ingest && ingest->ever_connected()) return "";
  }
  if (!is_over(limit, now - *job.waiting_since)) return "";
  return job.disks_sealed() == 0
             ? fmt::format("no client connected within {}", duration_text(limit))
             : fmt::format("no client connected to the next disk within {}", duration_text(limit));
}

std::string lost_connection(io::Duration limit, io::SteadyTime now, ActiveJob& job) {
  for (size_t at = 0; at < job.row.disks.size(); ++at) {
    const Ingest* const ingest = job.ingests[at].get();
    LostConnection& lost = job.lost[at];
    if (!ingest || is_sealed(job.row.disks[at].state) || !ingest->ever_connected() ||
        ingest->connected()) {
      lost.since.reset();
      continue;
    }
    if (!lost.since || lost.connection_order != ingest->connection_order()) {
      lost = {now, ingest->connection_order()};
    }
    if (is_over(limit, now - *lost.since)) {
      return fmt::format("the client of disk {} disconnected and did not come back within {}",
                         job.row.disks[at].index, duration_text(limit));
    }
  }
  return "";
}

void take_sample(Core& core, ActiveJob& job) {
  const io::Duration age = core.steady_now() - job.begun;
  if (age < core.options.sample_interval * static_cast<int64_t>(job.next_sample)) return;
  job.next_sample = static_cast<uint64_t>(age / core.options.sample_interval) + 1;
  for (JobDisk& disk : job.row.disks) {
    if (const Ingest* const ingest = job.ingest(disk); ingest && !is_sealed(disk.state)) {
      disk.counters = ingest->counters();
      core.catalogue->jobs.set_counters(job.row.id, disk.index, disk.counters);
    }
  }
  const BackupView view = job_view(core.jobs, core.now(), job.row);
  core.catalogue->samples.add(
      job.row.id,
      {.seconds =
           static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(age).count()),
       .bytes_per_second = job.speed.bytes_per_second(),
       .percent = view.progress_percent,
       .phase = job.row.telemetry.current_phase.empty() ? std::string(to_text(job.row.state))
                                                        : job.row.telemetry.current_phase,
       .source = SampleSource::server});
}

void look_at(Core& core, const std::shared_ptr<ActiveJob>& job) {
  uint64_t bytes = 0;
  for (const auto& ingest : job->ingests) {
    if (!ingest) continue;
    bytes += ingest->traffic().bytes_received + ingest->traffic().bytes_zeroed;
  }
  job->speed.note(core.steady_now(), bytes);
  // A step under way (seal, publish, cancel) ends by itself.
  if (!is_active(job->row.state) || job->failing || job->steps.locked()) return;
  if (job->row.state == JobState::finalizing) return;  // decided: no timeout ends it
  take_sample(core, *job);
  std::optional<Timeout> timeout = timeout_of(core.options.timeouts, core.steady_now(), *job);
  if (!timeout) return;
  job->failing = true;
  core.background.spawn(fail_job(core, job, timeout->code, std::move(timeout->cause)));
}

/// A full disk below the catalogue lets no backup start.
void try_catalogue(Core& core) {
  if (!core.health_was_asked.exchange(false)) return;
  std::string cause;
  try {
    core.catalogue->try_write();
  } catch (const std::exception& failure) {
    cause = failure.what();
  }
  if (core.catalogue_writable.exchange(cause.empty()) == cause.empty()) return;
  if (cause.empty()) {
    io::log(io::LogLevel::info, "the catalogue can be written to again");
  } else {
    io::log(io::LogLevel::error, "the catalogue cannot be written to: {}", cause);
  }
}

}  // namespace

io::Task<void> watch_jobs(Core& core) {
  SpaceWatch space(core);
  io::SteadyTime next_measurement = core.steady_now(), next_trial = core.steady_now();
  while (!core.shutting_down) {
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          watch_interval(core.options));
    try {
      record_missing_ends(*core.catalogue, core.unrecorded_ends);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "an ended job cannot be recorded: {}", failure.what());
    }
    for (const auto& job : core.jobs.all()) {
      try {
        look_at(core, job);
      } catch (const std::exception& failure) {
        io::log(io::LogLevel::error, about(job->row, failure.what()), "job {}: {}", job->row.id,
                failure.what());
      }
    }
    if (core.steady_now() >= next_trial) {
      next_trial = core.steady_now() + core.options.catalogue_trial_interval;
      try_catalogue(core);
      core.background.spawn(drop_expired(core));
    }
    if (core.steady_now() < next_measurement) continue;
    next_measurement = core.steady_now() + core.options.watch_interval;
    space.look();
  }
  co_await space.joined();
}

std::optional<Timeout> timeout_of(const JobTimeouts& timeouts, io::SteadyTime now, ActiveJob& job) {
  if (is_over(timeouts.max_duration, now - job.begun)) {
    return Timeout{FailureCode::max_duration, fmt::format("Job exceeded its maximum duration of {}",
                                                          duration_text(timeouts.max_duration))};
  }
  std::string missing = missing_connection(timeouts.first_connect, now, job);
  if (!missing.empty()) return Timeout{FailureCode::never_connected, std::move(missing)};
  std::string lost = lost_connection(timeouts.disconnect_grace, now, job);
  if (!lost.empty()) return Timeout{FailureCode::disconnected, std::move(lost)};
  const io::SteadyTime traffic = last_traffic(job);
  const io::SteadyTime sign_of_life = std::max(traffic, job.last_telemetry.value_or(traffic));
  if (is_over(timeouts.stall, now - sign_of_life)) {
    return Timeout{FailureCode::stalled,
                   fmt::format("Job stalled - no NBD traffic or telemetry for {}",
                               duration_text(timeouts.stall))};
  }
  if (is_over(timeouts.nbd_idle, now - traffic)) {
    return Timeout{FailureCode::stalled,
                   fmt::format("Job hangs - no NBD traffic for {} although telemetry continues",
                               duration_text(timeouts.nbd_idle))};
  }
  return std::nullopt;
}

io::SteadyTime last_traffic(const ActiveJob& job) {
  io::SteadyTime last = std::max(job.begun, job.waiting_since.value_or(job.begun));
  for (const auto& ingest : job.ingests) {
    if (!ingest) continue;
    const std::chrono::nanoseconds since_epoch(ingest->traffic().last_traffic_steady_ns.load());
    last = std::max(last, io::SteadyTime(since_epoch));
  }
  return last;
}

void note_connection(Catalogue& catalogue, ActiveJob& job, uint32_t disk_index) {
  JobDisk* const disk = job.disk(disk_index);
  if (!disk || !is_active(job.row.state)) return;
  disk->ever_connected = true;
  if (disk->state != DiskState::pending) return;
  try {
    catalogue.jobs.set_transferring(job.row.id, disk_index);
    disk->state = DiskState::transferring;
    io::log(io::LogLevel::info, about(job.row, disk_index),
            "job {}: the client has connected to disk {}", job.row.id, disk_index);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, about(job.row, disk_index, failure.what()), "job {}: {}",
            job.row.id, failure.what());
  }
}

std::string duration_text(io::Duration duration) {
  const auto ms = std::chrono::duration_cast<milliseconds>(duration).count();
  if (ms < 1000) return fmt::format("{}ms", ms);
  const auto whole_hours = std::chrono::duration_cast<hours>(duration);
  const auto whole_minutes = std::chrono::duration_cast<minutes>(duration - whole_hours);
  const auto rest =
      std::chrono::duration_cast<milliseconds>(duration - whole_hours - whole_minutes);
  std::string seconds = fmt::format("{}s", static_cast<double>(rest.count()) / 1000);
  if (whole_hours.count() > 0) {
    return fmt::format("{}h{}m{}", whole_hours.count(), whole_minutes.count(), seconds);
  }
  if (whole_minutes.count() > 0) return fmt::format("{}m{}", whole_minutes.count(), seconds);
  return seconds;
}

}  // namespace engine
