// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/telemetry.h"

#include <algorithm>

#include "engine/jobs/end_job.h"
#include "engine/jobs/job_view.h"
#include "engine/values/refusal.h"

namespace engine {
namespace {

uint64_t seconds_since_start(const Job& job, Time now) {
  const auto passed = now - job.started_at.value_or(job.created_at);
  return passed.count() < 0 ? 0 : static_cast<uint64_t>(passed.count());
}

/// "" unless the client says that it has failed.
std::string failure_in(const Telemetry& report) {
  if (report.error) return report.error->empty() ? "the client reported an error" : *report.error;
  return report.status == "failed" ? "the client reported that the backup failed" : "";
}

}  // namespace

io::Task<void> record_telemetry(Core& core, std::string job_id, Telemetry report) {
  const auto job = core.jobs.find(job_id);
  if (!job || !is_active(job->row.state)) {
    const auto row = core.catalogue->jobs.find(job_id);
    if (!row || row->deleting) throw refusals::telemetry_job_not_found(job_id);
    co_return;
  }
  const Time now = core.now();
  report.progress_percent = percent_before_the_end(report.progress_percent);
  core.catalogue->jobs.set_telemetry(job_id, report, now);
  if (auto row = core.catalogue->jobs.find(job_id)) job->row.telemetry = row->telemetry;
  job->last_telemetry = core.steady_now();
  core.catalogue->samples.add(job_id, {.seconds = seconds_since_start(job->row, now),
                                       .bytes_per_second = report.transfer_speed_bps,
                                       .percent = report.progress_percent,
                                       .phase = report.current_phase,
                                       .source = SampleSource::client});
  std::string failure = failure_in(report);
  if (!failure.empty()) co_await fail_job(core, job, FailureCode::client, std::move(failure));
}

TelemetryHistory telemetry_history(Core& core, const std::string& job_id, uint64_t limit) {
  auto job = core.catalogue->jobs.find(job_id);
  if (!job || job->deleting) throw refusals::telemetry_job_not_found(job_id);
  SampleHistory kept = core.catalogue->samples.history(job_id, limit);
  TelemetryHistory history;
  history.backup = job_view(core.jobs, core.now(), std::move(*job));
  const Job& row = history.backup.job;
  if (kept.recorded != 0) {
    history.source = kept.halved ? TelemetryHistory::Source::rolled_up
                                 : TelemetryHistory::Source::live_snapshots;
  }
  history.samples = std::move(kept.samples);
  history.duration_seconds = seconds_since_start(row, row.completed_at.value_or(core.now()));
  history.snapshots_recorded = kept.recorded;
  history.peak_speed_bps = kept.peak_bps;
  history.avg_speed_bps = kept.average_bps;
  history.min_speed_bps = kept.minimum_bps;
  return history;
}

}  // namespace engine
