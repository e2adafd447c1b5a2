#include "api/json_backups.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/values/time_text.h"

namespace api {
namespace {

using engine::to_rfc3339;
using engine::to_text;

constexpr const char* kManyDisks = "/multi-disk-parent";

std::string_view current_phase(const engine::Job& job) {
  return job.telemetry.current_phase.empty() ? to_text(job.state)
                                             : std::string_view(job.telemetry.current_phase);
}

// JSON has no infinity and no NaN.
double finite(double number) { return std::isfinite(number) ? number : 0; }

void add_text(Json& object, const char* name, std::string_view text) {
  if (!text.empty()) object[name] = text;
}

void add_time(Json& object, const char* name, const std::optional<engine::Time>& time) {
  if (time) object[name] = to_rfc3339(*time);
}

Json disk_result(const engine::JobDisk& disk, int64_t pid) {
  Json result = {
      {"disk_id", disk.index},
      {"nbd_port", disk.port},
      {"nbd_export_name", disk.export_name},
      {"qcow2_path", disk.image_path},
      {"qemu_nbd_pid", pid},
      {"status", to_text(shown_status(disk.state))},
  };
  add_text(result, "error_message", disk.error_message);
  return result;
}

Json warning_json(const engine::Warning& warning) {
  Json json = {{"code", to_text(warning.code)}, {"disk_id", nullptr}, {"message", warning.message}};
  if (warning.disk_index) json["disk_id"] = *warning.disk_index;
  return json;
}

std::string_view file_path(const engine::Job& job) {
  if (job.disks.empty()) return "";
  return job.disks.size() == 1 ? std::string_view(job.disks[0].image_path) : kManyDisks;
}

// The recorded id of the disk with the lowest index.
std::string_view change_id(const engine::Job& job) {
  return job.disks.empty() ? std::string_view() : std::string_view(job.disks[0].change_id);
}

}  // namespace

Json to_json(const engine::BackupView& view, int64_t pid) {
  const engine::Job& job = view.job;
  Json disks = Json::array();
  for (const auto& disk : job.disks) disks.push_back(disk_result(disk, pid));
  Json json = {
      {"backup_id", job.id},
      {"vm_context_id", job.context_id},
      {"vm_name", job.vm_name},
      {"disk_results", std::move(disks)},
      {"nbd_targets_string", is_active(job.state) ? job.nbd_targets : ""},
      {"backup_type", to_text(job.type)},
      {"type", to_text(job.type)},
      {"repository_id", job.repository_id},
  };
  add_text(json, "policy_id", job.policy_id);
  json["status"] = to_text(shown_status(job.state));
  json["state"] = to_text(job.state);
  add_text(json, "file_path", file_path(job));
  json["bytes_transferred"] = job.bytes_received();
  json["total_bytes"] = job.total_bytes();
  json["disks_count"] = job.disks.size();
  add_text(json, "change_id", change_id(job));
  add_text(json, "error_message", job.error_message);
  json["current_phase"] = current_phase(job);
  json["transfer_speed_bps"] = view.transfer_speed_bps;
  json["progress_percent"] = finite(view.progress_percent);
  json["created_at"] = to_rfc3339(job.created_at);
  add_time(json, "started_at", job.started_at);
  add_time(json, "completed_at", job.completed_at);
  add_time(json, "last_telemetry_at", job.telemetry.last_at);
  if (!job.tags.empty()) json["tags"] = job.tags;
  if (!job.warnings.empty()) {
    Json warnings = Json::array();
    for (const auto& warning : job.warnings) warnings.push_back(warning_json(warning));
    json["warnings"] = std::move(warnings);
  }
  return json;
}

Json started_json(const engine::BackupView& backup, int64_t pid) {
  Json json = to_json(backup, pid);
  json["status"] = "started";
  for (Json& disk : json["disk_results"]) disk["status"] = "prepared";
  return json;
}

Json to_json(const engine::BackupDiskView& view) {
  const engine::JobDisk& disk = view.disk;
  return {
      {"disk_index", disk.index},
      {"vmware_disk_key", disk.key},
      {"size_gb", engine::size_gb(disk.capacity_bytes)},
      {"capacity_bytes", disk.capacity_bytes},
      {"qcow2_path", disk.image_path},
      {"status", to_text(shown_status(disk.state))},
      {"state", to_text(disk.state)},
      {"error_message", disk.error_message},
      {"backup_type", to_text(disk.type)},
      {"image_id", disk.image_id},
      {"parent_image_id", disk.parent_image_id},
      {"parent_backup_id", disk.parent_job_id},
      {"change_id", disk.change_id},
      {"handed_out_change_id", disk.handed_out_change_id},
      {"bytes_received", disk.counters.bytes_received},
      {"bytes_zeroed", disk.counters.bytes_zeroed},
      {"bytes_elided", disk.counters.bytes_elided},
      {"bytes_stored", disk.counters.bytes_stored},
      {"progress_percent", finite(view.progress_percent)},
      {"connections", view.connections},
      {"last_request_at", to_rfc3339(view.last_request_at)},
  };
}

Json to_json(const engine::ChainView& chain, int64_t pid) {
  Json backups = Json::array();
  uint64_t total = 0, allocated = 0;
  for (const auto& [point, backup] : chain.points) {
    Json json = to_json(backup, pid);
    json.erase("change_id");  // another disk's, perhaps
    add_text(json, "change_id", point.change_id);
    json["file_path"] = point.image_path;
    json["parent_backup_id"] = point.parent_job_id;
    json["image_id"] = point.image_id;
    json["allocated_bytes"] = point.allocated_bytes;
    total += backup.job.total_bytes();
    allocated += point.allocated_bytes;
    backups.push_back(std::move(json));
  }
  const bool none = chain.points.empty();
  return {
      {"chain_id",
       none ? "" : chain.context_id + "-disk" + std::to_string(chain.disk_index) + "-chain"},
      {"vm_context_id", chain.context_id},
      {"vm_name", chain.vm_name},
      {"repository_id", chain.repository_id},
      {"disk_id", chain.disk_index},
      {"generation", chain.generation},
      {"full_backup_id", none ? "" : chain.points.front().point.job_id},
      {"latest_backup_id", none ? "" : chain.points.back().point.job_id},
      {"backups", std::move(backups)},
      {"total_size_bytes", total},
      {"backup_count", chain.points.size()},
      {"allocated_bytes", allocated},
  };
}

Json to_json(const engine::TelemetryHistory& history) {
  using Source = engine::TelemetryHistory::Source;
  const engine::Job& job = history.backup.job;
  Json chart = Json::array();
  for (const auto& sample : history.samples) {
    chart.push_back({{"t", sample.seconds},
                     {"s", sample.bytes_per_second},
                     {"p", finite(sample.percent)},
                     {"phase", sample.phase},
                     {"source", to_text(sample.source)}});
  }
  const Json state = {
      {"bytes_transferred", job.bytes_received()},
      {"total_bytes", job.total_bytes()},
      {"transfer_speed_bps", history.backup.transfer_speed_bps},
      {"progress_percent", finite(history.backup.progress_percent)},
      {"current_phase", current_phase(job)},
  };
  const Json metrics = {
      {"duration_seconds", history.duration_seconds},
      {"snapshots_recorded", history.snapshots_recorded},
      {"peak_speed_bps", history.peak_speed_bps},
      {"avg_speed_bps", history.avg_speed_bps},
      {"min_speed_bps", history.min_speed_bps},
  };
  return {
      {"job_id", job.id},
      {"status", to_text(shown_status(job.state))},
      {"data_source", history.source == Source::none             ? "none"
                      : history.source == Source::live_snapshots ? "live_snapshots"
                                                                 : "rolled_up"},
      {"current_state", state},
      {"chart_data", std::move(chart)},
      {"performance_metrics", metrics},
  };
}

}  // namespace api
