// SPDX-License-Identifier: Apache-2.0
#include "engine/service_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/watch.h"
#include "engine/repository/storage.h"
#include "engine/silence.h"
#include "engine/values/export_uri.h"

namespace engine {
namespace {

ExportView view_of(const EngineOptions& options, const Ports& ports, const Job& job,
                   const JobDisk& disk, const Ingest& ingest) {
  const nbd::Counters& traffic = ingest.traffic();
  ExportView view;
  view.name = disk.export_name;
  view.kind = ExportKind::ingest;
  view.backup_id = job.id;
  view.vm_name = job.vm_name;
  view.disk_index = disk.index;
  view.size_bytes = disk.capacity_bytes;
  view.state = to_text(disk.state);
  view.port = ports.port_of(disk.export_name);
  view.uris = export_uris(options, view.name, view.port);
  view.connections = static_cast<uint32_t>(traffic.connections_now);
  view.bytes_received = traffic.bytes_received;
  view.bytes_zeroed = traffic.bytes_zeroed;
  view.bytes_read = traffic.bytes_read;
  view.in_flight_bytes = traffic.in_flight_bytes;
  view.opened_at = job.created_at;
  view.last_request_at = ingest.last_request_at();
  return view;
}

}  // namespace

std::vector<ExportView> export_views(const Core& core) {
  std::vector<ExportView> views;
  for (const auto& job : core.jobs.all()) {
    if (!is_active(job->row.state)) continue;
    for (const JobDisk& disk : job->row.disks) {
      if (const Ingest* const ingest = job->ingest(disk)) {
        views.push_back(view_of(core.options, core.ports, job->row, disk, *ingest));
      }
    }
  }
  for (ExportView& point : core.restores.views()) {
    point.uris = export_uris(core.options, point.name);
    views.push_back(std::move(point));
  }
  std::sort(views.begin(), views.end(),
            [](const ExportView& a, const ExportView& b) { return a.name < b.name; });
  return views;
}

namespace {

void add_traffic(const Core& core, MetricsSnapshot& metrics) {
  Tally tally = core.tally;
  for (const auto& job : core.jobs.all()) {
    for (const auto& ingest : job->ingests) {
      if (!ingest) continue;
      tally.note_export(ingest->traffic(), ingest->counters());
      metrics.nbd_connections += ingest->traffic().connections_now;
    }
  }
  for (const nbd::Counters* const traffic : core.restores.traffic()) {
    tally.note_traffic(*traffic);
    metrics.nbd_connections += traffic->connections_now;
  }
  for (const auto& [key, count] : tally.requests) {
    metrics.nbd_requests_total.push_back({key.first, key.second, count});
  }
  metrics.nbd_request_seconds = tally.request_seconds;
  metrics.bytes_received = tally.bytes_received;
  metrics.bytes_zeroed = tally.bytes_zeroed;
  metrics.bytes_elided = tally.bytes_elided;
  metrics.bytes_stored = tally.bytes_stored;
  metrics.bytes_read = tally.bytes_read;
}

void add_counts(const Tally& tally, MetricsSnapshot& metrics) {
  for (const auto& [key, count] : tally.backups) {
    metrics.backups_total.push_back({key.first, key.second, count});
  }
  for (const auto& [key, count] : tally.verified_images) {
    metrics.verified_images_total.push_back({key.first, key.second, count});
  }
  metrics.verified_bytes_total = tally.verified_bytes;
  metrics.flags_total = tally.flags;
  metrics.seal_seconds = tally.seal_seconds;
  metrics.node_calls_total = tally.node_calls;
  metrics.job_failures_total = tally.failures;
  metrics.start_refusals_total = tally.start_refusals;
  metrics.events_total = tally.events;
}

void add_what_runs(const Core& core, MetricsSnapshot& metrics) {
  for (const auto& job : core.jobs.all()) {
    if (!is_active(job->row.state)) continue;
    const auto silent = core.steady_now() - last_traffic(*job);
    const Time at = core.now() - std::chrono::duration_cast<std::chrono::seconds>(silent);
    metrics.running_jobs.push_back({job->row.vm_name, at});
    for (const auto& ingest : job->ingests) metrics.exports[ExportKind::ingest] += bool(ingest);
  }
  for (const ExportView& view : core.restores.views()) ++metrics.exports[view.kind];
  metrics.tasks_running = {
      {"promotion", core.promotions.size()}, {"scrub", 0}, {"verification", 0}};
  for (const auto& one : core.verifications) {
    if (one->task.state != VerificationState::running) continue;
    const bool is_scrub = one->task.begun_by == VerificationOrigin::scrub;
    ++metrics.tasks_running[is_scrub ? "scrub" : "verification"];
  }
}

void add_repositories(Core& core, MetricsSnapshot& metrics) {
  for (const Repository& repository : core.catalogue->repositories.list()) {
    MetricsSnapshot::RepositoryState state;
    state.id = repository.id;
    state.available = core.availability.cause(repository.id).empty();
    state.space = repository.storage;
    const auto measured = core.spaces.find(repository.id);
    if (measured != core.spaces.end()) state.space = measured->second.measure;
    if (state.space) {
      state.reserve_bytes = reserve_of(state.space->total_bytes, core.options.space_reserve_bytes);
    }
    metrics.repositories.push_back(std::move(state));
  }
}

}  // namespace

MetricsSnapshot metrics_snapshot(Core& core) {
  MetricsSnapshot metrics;
  metrics.jobs = core.catalogue->jobs.count_by_state();
  add_traffic(core, metrics);
  add_counts(core.tally, metrics);
  add_what_runs(core, metrics);
  add_repositories(core, metrics);
  metrics.points = core.catalogue->points.count_by_verification();
  metrics.chains = core.catalogue->points.chain_lengths();
  metrics.restores = core.catalogue->restores.list().size();
  metrics.ports_allocated = core.ports.allocated();
  for (Vm& vm : core.catalogue->vms.list_ages()) {
    metrics.vms.push_back(with_silence(core, std::move(vm)));
  }
  if (core.parts.notifier) metrics.notifications_total = core.parts.notifier->deliveries();
  metrics.catalogue_writable = core.catalogue_writable;
  return metrics;
}

}  // namespace engine
