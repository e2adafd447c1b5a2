// SPDX-License-Identifier: Apache-2.0
#include "api/answers_backups.h"

#include <cmath>

#include "api/answers_signals.h"

namespace api {
namespace {

using engine::DiskCounters;
using engine::Job;
using engine::JobDisk;
using engine::Warning;

constexpr const char* kBackupTypes = "string:full,incremental,differential";
constexpr const char* kManyDisks = "/multi-disk-parent";

std::string_view file_path(const Job& job) {
  if (job.disks.empty()) return "";
  return job.disks.size() == 1 ? std::string_view(job.disks[0].image_path) : kManyDisks;
}

// The recorded id of the disk with the lowest index.
std::string_view change_id(const Job& job) {
  return job.disks.empty() ? std::string_view() : std::string_view(job.disks[0].change_id);
}

uint64_t sum_of(const ShownBackup& backup, uint64_t DiskCounters::*counter) {
  uint64_t sum = 0;
  for (const JobDisk& disk : backup.view.job.disks) sum += disk.counters.*counter;
  return sum;
}

struct ShownDisk {
  const JobDisk& disk;
  int64_t pid;
  bool just_started;
};

const Object<ShownDisk>& disk_result_object() {
  using D = ShownDisk;
  static const Object<D> object(
      "DiskResult", "One disk of a backup, in short.",
      {{"disk_id", "integer", "index", [](const D& d) { return d.disk.index; }},
       {"nbd_port", "integer", "0 once released", [](const D& d) { return d.disk.port; }},
       {"nbd_export_name", "string", "", [](const D& d) { return d.disk.export_name; }},
       {"qcow2_path", "string", "final path; until publish the data lies in PATH.partial",
        [](const D& d) { return d.disk.image_path; }},
       {"qemu_nbd_pid", "integer", "varve's own process id", &D::pid},
       {"status", "string:prepared,pending,running,completed,failed", "",
        [](const D& d) {
          return d.just_started ? "prepared" : to_text(shown_status(d.disk.state));
        }},
       {"error_message", "string?", "", [](const D& d) { return d.disk.error_message; }}});
  return object;
}

Json disk_results(const ShownBackup& backup) {
  Json results = Json::array();
  for (const JobDisk& disk : backup.view.job.disks) {
    results.push_back(disk_result_object().json({disk, backup.pid, backup.just_started}));
  }
  return results;
}

const Object<Warning>& warning_object() {
  static const Object<Warning> object(
      "Warning", "Something about a backup that does not make it fail.",
      {{"code",
        "string:sampled_zeroes,full_not_covered,change_tracking_reset,change_id_unusable,"
        "disk_added,disk_shrunk,long_chain,encrypted,entropy_jump,wrong_disk,layout_changed",
        "", &Warning::code},
       {"disk_id", "integer|null", "index of the disk concerned", &Warning::disk_index},
       {"message", "string", "", &Warning::message}});
  return object;
}

}  // namespace

double finite(double number) { return std::isfinite(number) ? number : 0; }

std::string_view current_phase(const Job& job) {
  return job.telemetry.current_phase.empty() ? to_text(job.state)
                                             : std::string_view(job.telemetry.current_phase);
}

const Object<ShownBackup>& backup_object() {
  using B = ShownBackup;
  static const Object<B> object(
      "Backup", "One backup of one VM.",
      {{"backup_id", "string", "job id", [](const B& b) { return b.view.job.id; }},
       {"vm_context_id", "string", "", [](const B& b) { return b.view.job.context_id; }},
       {"vm_name", "string", "as registered", [](const B& b) { return b.view.job.vm_name; }},
       {"disk_results", "[DiskResult]", "by index", disk_results},
       {"nbd_targets_string", "string", "sent to the node; empty once the job has ended",
        [](const B& b) { return is_active(b.view.job.state) ? b.view.job.nbd_targets : ""; }},
       {"backup_type", kBackupTypes, "", [](const B& b) { return b.view.job.type; }},
       {"type", kBackupTypes, "the same as backup_type",
        [](const B& b) { return b.view.job.type; }},
       {"into_chain", "boolean?", "true: a full of which disks stand on their newest point",
        [](const B& b) { return b.view.job.into_chain() ? std::optional(true) : std::nullopt; }},
       {"keep_partial", "boolean?", "true: if it fails, what has arrived stays",
        [](const B& b) { return b.view.job.keep_partial ? std::optional(true) : std::nullopt; }},
       {"resumable", "boolean?", "true: it failed, and another backup can resume it",
        [](const B& b) { return b.view.job.kept ? std::optional(true) : std::nullopt; }},
       {"resumes", "string?", "the failed backup that it resumes",
        [](const B& b) { return b.view.job.resumes; }},
       {"resumed_bytes", "integer?", "of bytes_transferred, what that one had received",
        [](const B& b) {
          return b.view.job.resumes.empty() ? std::nullopt
                                            : std::optional(b.view.job.resumed_bytes());
        }},
       {"client", "string:node,external", "who writes the disks",
        [](const B& b) { return b.view.job.client; }},
       {"repository_id", "string", "", [](const B& b) { return b.view.job.repository_id; }},
       {"policy_id", "string?", "", [](const B& b) { return b.view.job.policy_id; }},
       {"status", "string:started,pending,running,completed,failed,cancelled", "",
        [](const B& b) {
          return b.just_started ? "started" : to_text(shown_status(b.view.job.state));
        }},
       {"state", "string:preparing,running,finalizing,completed,failed,cancelled", "exact",
        [](const B& b) { return b.view.job.state; }},
       {"file_path", "string?",
        "image of a one-disk job, else /multi-disk-parent for old readers: disk_results has paths",
        [](const B& b) { return file_path(b.view.job); }},
       {"bytes_transferred", "integer", "payload of WRITE, all disks",
        [](const B& b) { return b.view.job.bytes_received(); }},
       {"bytes_zeroed", "integer", "WRITE_ZEROES and TRIM, all disks",
        [](const B& b) { return sum_of(b, &DiskCounters::bytes_zeroed); }},
       {"bytes_elided", "integer", "equal to what the chain holds, and not stored, all disks",
        [](const B& b) { return sum_of(b, &DiskCounters::bytes_elided); }},
       {"bytes_stored", "integer", "allocated in the files, all disks",
        [](const B& b) { return sum_of(b, &DiskCounters::bytes_stored); }},
       {"total_bytes", "integer",
        "what bytes_transferred grows towards, never less: of one disk telemetry's value, else the "
        "sum of capacities",
        [](const B& b) { return b.view.job.total_bytes(); }},
       {"disks_count", "integer", "", [](const B& b) { return b.view.job.disks.size(); }},
       {"change_id", "string?", "recorded for the disk with the lowest index",
        [](const B& b) { return change_id(b.view.job); }},
       {"error_message", "string?", "cause of failure or cancellation",
        [](const B& b) { return b.view.job.error_message; }},
       {"current_phase", "string", "telemetry's last phase, else the state",
        [](const B& b) { return current_phase(b.view.job); }},
       {"transfer_speed_bps", "integer", "bytes per second",
        [](const B& b) { return b.view.transfer_speed_bps; }},
       {"seconds_left", "integer?",
        "until the client has sent everything, at that speed; none where that is not known: how "
        "much an incremental has is known to its client alone",
        [](const B& b) { return b.view.seconds_left; }},
       {"progress_percent", "number", "of all disks; 100 only when completed",
        [](const B& b) { return finite(b.view.progress_percent); }},
       {"created_at", "time", "", [](const B& b) { return b.view.job.created_at; }},
       {"started_at", "time?", "", [](const B& b) { return b.view.job.started_at; }},
       {"completed_at", "time?", "also of a failure and a cancellation",
        [](const B& b) { return b.view.job.completed_at; }},
       {"last_telemetry_at", "time?", "", [](const B& b) { return b.view.job.telemetry.last_at; }},
       {"tags", "{string}?", "", [](const B& b) { return b.view.job.tags; }},
       {"warnings", "[Warning]?", "",
        [](const B& b) { return warning_object().list(b.view.job.warnings); }}});
  return object;
}

namespace {

Json signals_of_disk(const engine::BackupDiskView& view) {
  return signals_object().json(
      {engine::signals_of(view.disk.counters, view.disk.capacity_bytes), view.flags});
}

}  // namespace

const Object<engine::BackupDiskView>& backup_disk_object() {
  using V = engine::BackupDiskView;
  static const Object<V> object(
      "BackupDisk", "One disk of a backup.",
      {{"disk_index", "integer", "disk_id elsewhere", [](const V& v) { return v.disk.index; }},
       {"vmware_disk_key", "integer", "", [](const V& v) { return v.disk.key; }},
       {"size_gb", "integer", "GiB, rounded up",
        [](const V& v) { return engine::size_gb(v.disk.capacity_bytes); }},
       {"capacity_bytes", "integer", "exact", [](const V& v) { return v.disk.capacity_bytes; }},
       {"qcow2_path", "string", "final path", [](const V& v) { return v.disk.image_path; }},
       {"status", "string:pending,running,completed,failed", "",
        [](const V& v) { return shown_status(v.disk.state); }},
       {"state", "string:pending,transferring,sealing,sealed,completed,failed", "",
        [](const V& v) { return v.disk.state; }},
       {"error_message", "string", "", [](const V& v) { return v.disk.error_message; }},
       {"backup_type", kBackupTypes, "full if the image stands alone",
        [](const V& v) { return v.disk.type; }},
       {"image_id", "string", "", [](const V& v) { return v.disk.image_id; }},
       {"parent_image_id", "string", "", [](const V& v) { return v.disk.parent_image_id; }},
       {"parent_backup_id", "string", "", [](const V& v) { return v.disk.parent_job_id; }},
       {"change_id", "string", "recorded by complete", [](const V& v) { return v.disk.change_id; }},
       {"handed_out_change_id", "string", "given to the client for this job",
        [](const V& v) { return v.disk.handed_out_change_id; }},
       {"bytes_received", "integer", "payload of WRITE",
        [](const V& v) { return v.disk.counters.bytes_received; }},
       {"bytes_zeroed", "integer", "WRITE_ZEROES and TRIM",
        [](const V& v) { return v.disk.counters.bytes_zeroed; }},
       {"bytes_elided", "integer", "equal to what the chain holds, and not stored",
        [](const V& v) { return v.disk.counters.bytes_elided; }},
       {"bytes_stored", "integer", "allocated in the file",
        [](const V& v) { return v.disk.counters.bytes_stored; }},
       {"signals", "Signals", "what this backup looks like", signals_of_disk},
       {"history", "[PointSignals]", "the disk's points before this one, newest first",
        [](const V& v) { return point_signals_object().list(v.history); }},
       {"progress_percent", "number", "", [](const V& v) { return finite(v.progress_percent); }},
       {"connections", "integer", "open NBD connections", &V::connections},
       {"last_request_at", "string", "time; empty when there was none",
        [](const V& v) { return engine::to_rfc3339(v.last_request_at); }}});
  return object;
}

const Object<ShownBackupList>& backup_list_object() {
  using L = ShownBackupList;
  static const Object<L> object(
      "BackupList", "Backups, newest first.",
      {{"backups", "[Backup]", "",
        [](const L& list) { return backup_list(list.found.backups, list.pid); }},
       {"total", "integer", "matches before limit and offset",
        [](const L& list) { return list.found.total; }}});
  return object;
}

std::vector<Schema> backup_schemas() {
  return schemas_of(disk_result_object(), warning_object(), backup_object(), backup_disk_object());
}

}  // namespace api
