// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/job_view.h"

#include <algorithm>

#include "engine/values/refusal.h"
#include "engine/values/signals.h"

namespace engine {
namespace {

constexpr std::chrono::seconds kTelemetrySpeedAge{30};

double percent_of(const JobDisk& disk) {
  if (is_sealed(disk.state)) return 100;
  if (disk.capacity_bytes == 0) return 0;
  const double covered = static_cast<double>(disk.counters.covered_bytes);
  return percent_before_the_end(100 * covered / static_cast<double>(disk.capacity_bytes));
}

/// The disk that the client copies: it takes one after the other.
const JobDisk* disk_under_way(const Job& job) {
  for (const JobDisk& disk : job.disks) {
    if (!is_sealed(disk.state) && disk.ever_connected) return &disk;
  }
  return nullptr;
}

/// `said` is the client's percentage, of the disk that it copies now.
double percent_of(const Job& job, double said) {
  if (job.state == JobState::completed) return 100;
  const JobDisk* const under_way = disk_under_way(job);
  if (said > 0 && (job.disks.size() == 1 || !under_way)) return percent_before_the_end(said);
  double done = 0, all = 0;
  for (const JobDisk& disk : job.disks) {
    const double capacity = static_cast<double>(disk.capacity_bytes);
    double percent = percent_of(disk);
    if (&disk == under_way) percent = std::max(percent, percent_before_the_end(said));
    done += percent / 100 * capacity;
    all += capacity;
  }
  return all == 0 ? 0 : percent_before_the_end(100 * done / all);
}

/// The client's percentage; that of a disk which is sealed by now says nothing of the next one.
double said_by_the_client(const Job& job, const ActiveJob* running) {
  if (running && running->waiting_since && running->last_telemetry < running->waiting_since)
    return 0;
  return job.telemetry.progress_percent;
}

std::optional<uint64_t> seconds_left(const BackupView& view, bool telemetry_is_fresh) {
  const Job& job = view.job;
  if (job.state != JobState::running) return std::nullopt;
  // A client speaks of the disk that it copies.
  const bool has_one_disk = job.disks.size() == 1;
  if (has_one_disk && telemetry_is_fresh && job.telemetry.eta_seconds != 0) {
    return job.telemetry.eta_seconds;
  }
  if (view.transfer_speed_bps == 0) return std::nullopt;
  if (has_one_disk && job.telemetry.total_bytes != 0) {
    return (job.total_bytes() - job.bytes_received()) / view.transfer_speed_bps;
  }
  if (job.type != BackupType::full) return std::nullopt;
  const double left =
      static_cast<double>(job.capacity_bytes()) * (100 - view.progress_percent) / 100;
  return static_cast<uint64_t>(left / static_cast<double>(view.transfer_speed_bps));
}

}  // namespace

Job require_backup(Catalogue& catalogue, const std::string& backup_id) {
  auto job = catalogue.jobs.find(backup_id);
  if (!job || job->deleting) throw refusals::backup_not_found(backup_id);
  return std::move(*job);
}

double percent_before_the_end(double percent) {
  return percent > 0 ? std::min(percent, 99.9) : 0;  // also for what is no number
}

BackupView job_view(const ActiveJobs& jobs, Time now, Job job) {
  BackupView view;
  const auto running = jobs.find(job.id);
  uint64_t measured = 0;
  if (running) {
    if (&running->row != &job) job = running->row;
    for (JobDisk& disk : job.disks) {
      const Ingest* const ingest = running->ingests[&disk - job.disks.data()].get();
      if (ingest && !is_sealed(disk.state)) disk.counters = ingest->counters();
    }
    measured = running->speed.bytes_per_second();
  }
  const bool fresh = job.telemetry.last_at && now - *job.telemetry.last_at < kTelemetrySpeedAge;
  if (is_active(job.state)) {
    view.transfer_speed_bps = fresh && job.telemetry.transfer_speed_bps != 0
                                  ? job.telemetry.transfer_speed_bps
                                  : measured;
  }
  view.progress_percent = percent_of(job, said_by_the_client(job, running.get()));
  view.job = std::move(job);
  view.seconds_left = seconds_left(view, fresh);
  return view;
}

BackupView backup_view(Core& core, const std::string& backup_id) {
  return job_view(core.jobs, core.now(), require_backup(*core.catalogue, backup_id));
}

std::vector<BackupDiskView> backup_disk_views(Core& core, const std::string& backup_id) {
  const BackupView backup = backup_view(core, backup_id);
  const auto running = core.jobs.find(backup_id);
  std::vector<BackupDiskView> views;
  for (size_t at = 0; at < backup.job.disks.size(); ++at) {
    BackupDiskView view{.disk = backup.job.disks[at]};
    view.flags = flags_of(backup.job.warnings, view.disk.index);
    view.history = core.catalogue->points.history(backup.job.context_id, backup.job.repository_id,
                                                  view.disk.index, backup.job.id, kHistoryPoints);
    view.progress_percent = backup.job.state == JobState::completed ? 100 : percent_of(view.disk);
    const Ingest* const ingest = running ? running->ingests[at].get() : nullptr;
    if (ingest) {
      view.connections = static_cast<uint32_t>(ingest->traffic().connections_now);
      view.last_request_at = ingest->last_request_at();
    }
    views.push_back(std::move(view));
  }
  return views;
}

BackupList backup_list(Core& core, const BackupFilter& filter) {
  if (!filter.vm_name.empty() && core.catalogue->vms.named(filter.vm_name).empty()) {
    throw refusals::vm_not_found(filter.vm_name);
  }
  JobPage page = core.catalogue->jobs.list(filter);
  BackupList list{.total = page.total};
  for (Job& job : page.jobs)
    list.backups.push_back(job_view(core.jobs, core.now(), std::move(job)));
  return list;
}

BackupStats backup_stats_of(Catalogue& catalogue, const std::string& vm_name,
                            const std::string& repository_id) {
  BackupStats stats;
  for (const Vm& vm : catalogue.vms.named(vm_name)) {
    const JobTotals totals = catalogue.jobs.totals(vm.context_id, repository_id);
    stats.backup_count += totals.backup_count;
    stats.total_size_bytes += totals.total_size_bytes;
    stats.last_backup_at = std::max(stats.last_backup_at, totals.last_backup_at);
  }
  return stats;
}

ChainView chain_view(Core& core, const ChainQuery& query) {
  Vm vm;
  if (query.vm_context_id.empty()) {
    vm = core.catalogue->vms.resolve(query.vm_name);
  } else {
    auto found = core.catalogue->vms.find_context(query.vm_context_id);
    if (!found) throw refusals::vm_not_found(query.vm_context_id);
    vm = std::move(*found);
  }
  ChainView view{.context_id = vm.context_id,
                 .vm_name = vm.vm_name,
                 .repository_id = query.repository_id,
                 .disk_index = query.disk_id,
                 .generation = query.generation.value_or(0)};
  if (view.repository_id.empty()) {
    view.repository_id = core.catalogue->points.newest_repository(vm.context_id);
  }
  auto chain = core.catalogue->points.chain(vm.context_id, view.repository_id, query.disk_id,
                                            query.generation);
  if (!chain) return view;
  view.generation = chain->generation;
  for (Point& point : chain->points) {
    auto job = core.catalogue->jobs.find(point.job_id);
    if (!job) continue;
    view.points.push_back({std::move(point), job_view(core.jobs, core.now(), std::move(*job))});
  }
  return view;
}

}  // namespace engine
