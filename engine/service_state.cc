#include "engine/service_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/repositories.h"
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

MetricsSnapshot metrics_snapshot(Core& core) {
  MetricsSnapshot metrics;
  Tally tally = core.tally;
  metrics.jobs = core.catalogue->jobs.count_by_state();
  for (const auto& job : core.jobs.all()) {
    for (const auto& ingest : job->ingests) {
      if (!ingest) continue;
      tally.note_export(ingest->traffic(), ingest->counters());
      metrics.nbd_connections += ingest->traffic().connections_now;
    }
  }
  for (const auto& [key, count] : tally.backups) {
    metrics.backups_total.push_back({key.first, key.second, count});
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
  for (const auto& [key, count] : tally.verified_images) {
    metrics.verified_images_total.push_back({key.first, key.second, count});
  }
  metrics.verified_bytes_total = tally.verified_bytes;
  metrics.points = core.catalogue->points.count_by_verification();
  metrics.ports_allocated = core.ports.allocated();
  for (const Repository& repository : core.catalogue->repositories.list()) {
    if (auto storage = known_storage(*core.catalogue, repository)) {
      metrics.repositories.push_back(std::move(*storage));
    }
  }
  metrics.flags_total = tally.flags;
  metrics.seal_seconds = tally.seal_seconds;
  metrics.node_calls_total = tally.node_calls;
  for (const Vm& vm : core.catalogue->vms.list()) {
    if (vm.last_successful_job_id.empty()) continue;
    const auto job = core.catalogue->jobs.find(vm.last_successful_job_id);
    if (job && job->completed_at) metrics.last_success[vm.vm_name] = *job->completed_at;
  }
  return metrics;
}

}  // namespace engine
