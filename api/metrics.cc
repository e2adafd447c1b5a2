// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <fmt/format.h>

#include <utility>

#include "api/metrics_page.h"
#include "engine/values/time_text.h"

namespace api {
namespace {

using engine::MetricsSnapshot;

constexpr auto kAsWord = [](auto value) { return engine::to_text(value); };
constexpr auto kAsItIs = [](const std::string& value) { return std::string_view(value); };

void add_service(MetricsPage& page, const MetricsSnapshot& snapshot, std::string_view version) {
  page.family("varve_build_info", "gauge", "1, with the version as its label.");
  page.sample("varve_build_info", {{"version", version}}, 1);
  page.only("varve_ready", "gauge", "1 when backups can be started, as GET /readyz says.",
            std::optional(snapshot.ready ? 1 : 0));
  page.only("varve_catalogue_writable", "gauge", "1 when the catalogue could be written last.",
            std::optional(snapshot.catalogue_writable ? 1 : 0));
}

void add_jobs(MetricsPage& page, const MetricsSnapshot& snapshot) {
  using enum engine::JobState;
  page.family("varve_jobs", "gauge", "Backup jobs by state.");
  for (const auto state : {preparing, running, finalizing, completed, failed, cancelled}) {
    const auto found = snapshot.jobs.find(state);
    page.sample("varve_jobs", {{"state", to_text(state)}},
                found == snapshot.jobs.end() ? 0 : found->second);
  }
  page.family("varve_backups_total", "counter", "Backups that have ended, by result and type.");
  for (const auto& total : snapshot.backups_total) {
    page.sample("varve_backups_total", {{"result", total.result}, {"type", to_text(total.type)}},
                total.count);
  }
  page.counts("varve_job_failures_total", "counter", "Backup jobs that have failed, by the reason.",
              "code", snapshot.job_failures_total, kAsWord);
  page.counts("varve_start_refusals_total", "counter",
              "Backups that were asked for and not started, by the refusal's code.", "code",
              snapshot.start_refusals_total, kAsItIs);
  page.family("varve_job_last_traffic_timestamp_seconds", "gauge",
              "When the running backup of a VM last moved a byte, in seconds since 1970.");
  for (const auto& job : snapshot.running_jobs) {
    page.sample("varve_job_last_traffic_timestamp_seconds", {{"vm", job.vm_name}},
                engine::unix_seconds(job.last_traffic_at));
  }
}

/// A family with one time for each VM that has it.
template <class Member>
void times_of_vms(MetricsPage& page, const MetricsSnapshot& snapshot, std::string_view name,
                  std::string_view help, Member member) {
  page.family(name, "gauge", help);
  for (const engine::Vm& vm : snapshot.vms) {
    const std::optional<engine::Time> time = vm.*member;
    if (time) page.sample(name, {{"vm", vm.vm_name}}, engine::unix_seconds(*time));
  }
}

void add_vms(MetricsPage& page, const MetricsSnapshot& snapshot) {
  times_of_vms(page, snapshot, "varve_last_success_timestamp_seconds",
               "When a VM's newest good backup completed, in seconds since 1970.",
               &engine::Vm::last_good_at);
  times_of_vms(page, snapshot, "varve_last_verified_timestamp_seconds",
               "When a VM's newest backup that was found sound completed, in seconds since 1970.",
               &engine::Vm::last_verified_at);
  times_of_vms(page, snapshot, "varve_vm_registered_timestamp_seconds",
               "When a VM was registered, in seconds since 1970.", &engine::Vm::created_at);
  page.family("varve_vm_expected_interval_seconds", "gauge",
              "How often a good backup of a VM is expected; missing where none is.");
  for (const engine::Vm& vm : snapshot.vms) {
    const uint64_t interval = vm.expected_interval_seconds.value_or(0);
    if (interval == 0) continue;
    page.sample("varve_vm_expected_interval_seconds", {{"vm", vm.vm_name}}, interval);
  }
  page.family("varve_vm_overdue", "gauge",
              "1 when no good backup of a VM is as new as expected; missing where none is.");
  for (const engine::Vm& vm : snapshot.vms) {
    if (vm.expected_interval_seconds.value_or(0) == 0) continue;
    page.sample("varve_vm_overdue", {{"vm", vm.vm_name}}, vm.overdue ? 1 : 0);
  }
  page.family("varve_chain_images", "gauge",
              "Images that are read together for the newest point of a disk; 256 at most.");
  for (const engine::ChainLength& chain : snapshot.chains) {
    page.sample("varve_chain_images",
                {{"vm", chain.vm_name},
                 {"repository", chain.repository_id},
                 {"disk", std::to_string(chain.disk_index)}},
                chain.images);
  }
}

void add_nbd(MetricsPage& page, const MetricsSnapshot& snapshot) {
  page.only("varve_nbd_connections", "gauge", "Open NBD connections.",
            std::optional(snapshot.nbd_connections));
  page.family("varve_nbd_requests_total", "counter", "NBD requests by command and result.");
  for (const auto& total : snapshot.nbd_requests_total) {
    page.sample("varve_nbd_requests_total", {{"command", total.command}, {"result", total.result}},
                total.count);
  }
  page.histogram("varve_nbd_request_seconds", "From an NBD request's header to its reply.",
                 snapshot.nbd_request_seconds);
  page.family("varve_bytes_total", "counter",
              "Bytes of backups and restores by what became of them.");
  const std::pair<std::string_view, uint64_t> kinds[] = {{"received", snapshot.bytes_received},
                                                         {"zeroed", snapshot.bytes_zeroed},
                                                         {"elided", snapshot.bytes_elided},
                                                         {"stored", snapshot.bytes_stored},
                                                         {"read", snapshot.bytes_read}};
  for (const auto& [kind, bytes] : kinds) page.sample("varve_bytes_total", {{"kind", kind}}, bytes);
  page.only("varve_ports_allocated", "gauge", "Ports of the range that serve an export.",
            std::optional(snapshot.ports_allocated));
  page.family("varve_exports", "gauge", "Open NBD exports by kind.");
  for (const std::string_view word : engine::kWords<engine::ExportKind>) {
    const auto found = snapshot.exports.find(*engine::from_text<engine::ExportKind>(word));
    page.sample("varve_exports", {{"kind", word}},
                found == snapshot.exports.end() ? 0 : found->second);
  }
  page.only("varve_restores", "gauge", "Restores that are kept ready.",
            std::optional(snapshot.restores));
  page.counts("varve_tasks_running", "gauge", "What runs beside backups, by kind.", "kind",
              snapshot.tasks_running, kAsItIs);
}

void add_repositories(MetricsPage& page, const MetricsSnapshot& snapshot) {
  page.family("varve_repository_bytes", "gauge",
              "Space of repositories, as last measured: total, used, available, and what is kept "
              "in reserve.");
  for (const auto& repository : snapshot.repositories) {
    if (!repository.space) continue;
    const std::pair<std::string_view, uint64_t> kinds[] = {
        {"total", repository.space->total_bytes},
        {"used", repository.space->used_bytes},
        {"available", repository.space->available_bytes},
        {"reserve", repository.reserve_bytes}};
    for (const auto& [kind, bytes] : kinds) {
      page.sample("varve_repository_bytes", {{"repository", repository.id}, {"kind", kind}}, bytes);
    }
  }
  page.family("varve_repository_available", "gauge", "1 when a repository can be used.");
  for (const auto& repository : snapshot.repositories) {
    page.sample("varve_repository_available", {{"repository", repository.id}},
                repository.available ? 1 : 0);
  }
}

void add_verifications(MetricsPage& page, const MetricsSnapshot& snapshot) {
  page.counts("varve_points", "gauge", "Published images by the result of their last proof.",
              "verification", snapshot.points, kAsItIs);
  page.family("varve_verified_images_total", "counter",
              "Images proven, by who began it and result.");
  for (const auto& total : snapshot.verified_images_total) {
    page.sample("varve_verified_images_total",
                {{"begun_by", to_text(total.begun_by)}, {"result", to_text(total.result)}},
                total.count);
  }
  page.counts("varve_verified_bytes_total", "counter",
              "Bytes read by verifications that have ended.", "begun_by",
              snapshot.verified_bytes_total, kAsWord);
}

void add_events(MetricsPage& page, const MetricsSnapshot& snapshot) {
  page.counts("varve_flags_total", "counter", "Disks of backups that looked unusual, by flag.",
              "flag", snapshot.flags_total, kAsWord);
  page.counts("varve_node_calls_total", "counter", "Calls to the node API by result.", "result",
              snapshot.node_calls_total, kAsItIs);
  page.counts("varve_events_total", "counter", "What somebody may have been notified of.", "event",
              snapshot.events_total, kAsWord);
  page.family("varve_notifications_total", "counter",
              "Notifications by way and by what became of them.");
  for (const auto& total : snapshot.notifications_total) {
    page.sample("varve_notifications_total", {{"way", total.way}, {"result", total.result}},
                total.count);
  }
}

void add_process(MetricsPage& page, const ServiceNumbers& service) {
  page.family("varve_http_requests_total", "counter",
              "HTTP requests by subject and class of the status.");
  for (const auto& [key, count] : service.http_requests) {
    page.sample("varve_http_requests_total", {{"subject", key.first}, {"status", key.second}},
                count);
  }
  const ProcessNumbers& numbers = service.process;
  page.only("process_start_time_seconds", "gauge", "Start time, in seconds since 1970.",
            numbers.start_time_seconds);
  page.only("process_cpu_seconds_total", "counter", "User and system CPU time.",
            numbers.cpu_seconds);
  page.only("process_open_fds", "gauge", "Open file descriptors.", numbers.open_fds);
  page.only("process_max_fds", "gauge", "File descriptors that may be open.", numbers.fds_max);
  page.only("process_resident_memory_bytes", "gauge", "Resident memory.", numbers.resident_bytes);
  page.only("process_virtual_memory_bytes", "gauge", "Virtual memory.", numbers.virtual_bytes);
  page.only("process_threads", "gauge", "Threads of the operating system.", numbers.threads);
}

}  // namespace

std::string prometheus_text(const MetricsSnapshot& snapshot, const ServiceNumbers& service) {
  MetricsPage page;
  add_service(page, snapshot, service.version);
  add_jobs(page, snapshot);
  add_vms(page, snapshot);
  add_nbd(page, snapshot);
  add_repositories(page, snapshot);
  add_verifications(page, snapshot);
  page.histogram("varve_seal_seconds", "From `complete` to a durable disk.", snapshot.seal_seconds);
  add_events(page, snapshot);
  add_process(page, service);
  return page.take();
}

}  // namespace api
