// SPDX-License-Identifier: Apache-2.0
#include "samples.h"

namespace api_tests {
namespace {

using std::chrono::seconds;

constexpr const char* kContext = "ctx-pgtest1-20251006-203401";
constexpr uint64_t kBytes[] = {109521666048, 5368709120};

engine::JobDisk job_disk(uint32_t index, engine::DiskState state) {
  engine::JobDisk disk;
  disk.job_id = "backup-pgtest1-1759913694";
  disk.index = index;
  disk.key = 2000 + index;
  disk.capacity_bytes = kBytes[index];
  disk.state = state;
  disk.image_id = "backup-pgtest1-disk" + std::to_string(index) + "-20251008-085454";
  disk.image_path = std::string("/backup/repository/") + kContext + "/disk-" +
                    std::to_string(index) + "/" + disk.image_id + ".qcow2";
  disk.export_name = "pgtest1-1759913694-disk" + std::to_string(index);
  disk.port = static_cast<uint16_t>(10100 + index);
  disk.created_at = sample_time();
  return disk;
}

engine::BackupView one_disk_backup(engine::JobState state) {
  engine::BackupView view;
  view.job.id = "backup-pgtest1-1759913694";
  view.job.context_id = kContext;
  view.job.vm_name = "pgtest1";
  view.job.repository_id = "1";
  view.job.state = state;
  view.job.created_at = sample_time();
  view.job.started_at = sample_time();
  view.job.disks = {job_disk(0, engine::DiskState::pending)};
  return view;
}

}  // namespace

engine::Time sample_time() { return engine::Time{seconds(1759913694)}; }

engine::BackupView running_backup() {
  engine::BackupView view = one_disk_backup(engine::JobState::running);
  view.job.disks.push_back(job_disk(1, engine::DiskState::pending));
  view.job.nbd_targets =
      "2000:nbd://127.0.0.1:10100/pgtest1-1759913694-disk0,"
      "2001:nbd://127.0.0.1:10101/pgtest1-1759913694-disk1";
  return view;
}

engine::BackupView completed_backup() {
  engine::BackupView view = running_backup();
  view.job.state = engine::JobState::completed;
  view.job.completed_at = sample_time() + seconds(164);
  view.progress_percent = 100;
  for (auto& disk : view.job.disks) {
    disk.state = engine::DiskState::completed;
    disk.port = 0;
    disk.change_id = disk.index == 0 ? kChangeId : "aa bb/7";
    disk.counters.bytes_received = 1000 + disk.index;
  }
  return view;
}

engine::BackupView failed_backup() {
  engine::BackupView view = one_disk_backup(engine::JobState::failed);
  view.job.type = engine::BackupType::incremental;
  view.job.policy_id = "policy-1";
  view.job.error_message = "No space left on device";
  view.job.completed_at = sample_time() + seconds(60);
  view.job.tags = {{"owner", "ops"}};
  view.job.telemetry = {"transferring", 500, 4096, 77, 12, 12.5, sample_time() + seconds(30)};
  view.job.warnings = {{engine::WarningCode::disk_added, 0, "disk-2000 is new"},
                       {engine::WarningCode::change_id_unusable, std::nullopt, "no slash"}};
  view.job.disks[0].state = engine::DiskState::failed;
  view.job.disks[0].error_message = "write at 65536: No space left on device";
  view.transfer_speed_bps = 77;
  view.progress_percent = 12.5;
  return view;
}

engine::BackupDiskView backup_disk() {
  engine::BackupDiskView view;
  view.disk = job_disk(0, engine::DiskState::transferring);
  view.disk.type = engine::BackupType::incremental;
  view.disk.parent_image_id = "backup-pgtest1-disk0-20251007-085454";
  view.disk.parent_job_id = "backup-pgtest1-1759827294";
  view.disk.handed_out_change_id = kChangeId;
  view.disk.counters = {
      .bytes_received = 1048576, .bytes_zeroed = 65536, .bytes_elided = 0, .bytes_stored = 917504};
  view.disk.counters.judged_bytes = 1 << 20;
  view.disk.counters.incompressible_bytes = 983040;
  view.flags = {{engine::WarningCode::encrypted, 0, "disk 0: looks encrypted: 94 % of the data…"}};
  view.history = {chain().points.front().point};
  view.history[0].completed_at = sample_time() - seconds(86400);
  view.history[0].capacity_bytes = view.disk.capacity_bytes;
  view.history[0].counters = {.bytes_received = 1 << 30, .bytes_stored = 1 << 30};
  view.progress_percent = 12.5;
  view.connections = 2;
  view.last_request_at = sample_time() + seconds(9);
  return view;
}

engine::PointView point() {
  engine::PointView view{chain().points.back().point, "", {}};
  view.point.vm_name = "pgtest1";
  view.point.repository_id = "1";
  view.point.capacity_bytes = 10737418240;
  view.point.place = {1, 1};
  view.point.completed_at = sample_time();
  view.export_name = "pgtest1/disk-1@" + view.point.job_id;
  view.uris = {"nbd://127.0.0.1:10809/" + view.export_name};
  return view;
}

engine::RestoreView restore() {
  engine::RestoreView view;
  engine::Restore& restore = view.restore;
  restore.id = "restore-pgtest1-1760000200-abcdefghijklmnopqrst";
  restore.job_id = "backup-pgtest1-1760000101";
  restore.vm_name = "pgtest1";
  restore.mode = engine::RestoreMode::writable;
  restore.state = engine::RestoreState::ready;
  restore.created_at = sample_time();
  restore.expires_at = sample_time() + seconds(86400);
  restore.disks = {{restore.id, 1, "backup-pgtest1-disk1-20251009-085501", restore.id + "/disk-1",
                    "/repository/x.overlay"}};
  view.disks = {{{"nbd://127.0.0.1:10809/" + restore.disks[0].export_name}, 200704}};
  return view;
}

engine::RestoreView promoted() {
  engine::RestoreView view = restore();
  view.restore.promotion = {{.restore_id = view.restore.id,
                             .path = "/srv/images/pgtest1-data.qcow2",
                             .total_bytes = 10737418240,
                             .copied_bytes = 3221225472,
                             .started_at = sample_time() + seconds(60)}};
  return view;
}

engine::Verification verification(engine::VerificationState state) {
  engine::Verification task{.id = "verification-1760000300-1",
                            .backup_id = "backup-pgtest1-1760000101",
                            .state = state,
                            .image_count = 2,
                            .total_bytes = 1077936128,
                            .started_at = sample_time()};
  if (state == engine::VerificationState::running) return task;
  task.read_bytes = 1077936128;
  task.ended_at = sample_time() + seconds(2);
  engine::ImageVerification full{.image_id = "backup-pgtest1-disk1-20251008-085454",
                                 .job_id = "backup-pgtest1-1759913694",
                                 .vm_name = "pgtest1",
                                 .disk_index = 1,
                                 .verified_at = sample_time() + seconds(2)};
  engine::ImageVerification increment = full;
  full.result = engine::VerificationResult::damaged;
  full.data_bytes = 1073741824;
  full.damaged_bytes = 65536;
  full.damaged = {{1048576, 65536, 1376256, "reads differently"}};
  increment.image_id = "backup-pgtest1-disk1-20251009-085501";
  increment.job_id = "backup-pgtest1-1760000101";
  increment.data_bytes = 4194304;
  increment.zero_bytes = 65536;
  full.second_reader = engine::SecondReading{.stored_bytes = 1073741824,
                                             .covered_bytes = 1073741824,
                                             .damaged_bytes = 65536,
                                             .damaged = {{1048576, 65536, 0, "reads differently"}}};
  increment.second_reader = engine::SecondReading{
      .stored_bytes = 4194304,
      .covered_bytes = 2097152,
      .problem = "libqcow was killed by signal 11 (SIGSEGV); it had read 2097152 of 4194304 bytes"};
  task.images = {full, increment};
  task.damaged_backups = {full.job_id, increment.job_id};
  return task;
}

engine::WantedView wanted() {
  const engine::Verification proof = verification();
  const engine::ImageVerification& full = proof.images[0];
  const std::string newest = "backup-pgtest1-1760000101";
  return {.context_id = kContext,
          .vm_name = "pgtest1",
          .repository_id = "1",
          .disks = {{.disk_index = 1,
                     .backup_id = newest,
                     .change_id = "52 1f 3c 9a/8",
                     .size_bytes = 10737418240,
                     .cluster_bytes = 65536,
                     .ranges = {{1048576, 65536, false, {"8d7e4c1fa0b23e965d11c0a7f4e29b38"}}}}},
          .images = {{.backup_id = full.job_id,
                      .disk_index = 1,
                      .verified_at = full.verified_at,
                      .damaged_bytes = full.damaged_bytes,
                      .newest_reads_it = true,
                      .damaged_backups = {full.job_id}}}};
}

engine::ChangesView changes() {
  return {.backup_id = "backup-pgtest1-1760000101",
          .since = "backup-pgtest1-1759913694",
          .disk_index = 1,
          .size_bytes = 10737418240,
          .ranges = {{65536, 131072, false}, {1048576, 65536, true}}};
}

engine::ChainView chain() {
  engine::ChainView view;
  view.context_id = kContext;
  view.vm_name = "pgtest1";
  view.repository_id = "1";
  view.disk_index = 1;
  view.generation = 1;
  engine::ChainPoint full;
  full.backup = completed_backup();
  const engine::JobDisk& disk = full.backup.job.disks[1];
  full.point.image_id = disk.image_id;
  full.point.image_path = disk.image_path;
  full.point.job_id = full.backup.job.id;
  full.point.disk_index = 1;
  full.point.change_id = disk.change_id;
  full.point.allocated_bytes = 200704;
  engine::ChainPoint next = full;
  next.backup.job.id = next.point.job_id = "backup-pgtest1-1760000101";
  next.backup.job.type = next.point.type = engine::BackupType::incremental;
  next.point.parent_job_id = full.point.job_id;
  next.point.image_id = "backup-pgtest1-disk1-20251009-085501";
  next.point.change_id = "aa bb/8";
  view.points = {full, next};
  return view;
}

engine::TelemetryHistory telemetry_history() {
  engine::TelemetryHistory history;
  history.backup = running_backup();
  history.source = engine::TelemetryHistory::Source::live_snapshots;
  history.samples = {{30, 336392246, 50, "transferring", engine::SampleSource::client},
                     {35, 350000000, 55, "running", engine::SampleSource::server}};
  history.duration_seconds = 35;
  history.snapshots_recorded = 2;
  history.peak_speed_bps = 350000000;
  history.avg_speed_bps = 343196123;
  history.min_speed_bps = 336392246;
  return history;
}

engine::StorageInfo storage() { return {"1", 1000000000, 250000000, 750000000, 3, sample_time()}; }

engine::RepositoryView repository() {
  engine::RepositoryView view;
  view.repository.id = "1";
  view.repository.name = "default";
  view.repository.config_json = R"({"path":"/backup/repository"})";
  view.repository.storage = engine::StorageMeasure{1000000000, 250000000, 750000000, sample_time()};
  view.repository.created_at = view.repository.updated_at = sample_time();
  view.backup_count = 3;
  return view;
}

engine::Vm vm() {
  engine::Vm vm;
  vm.context_id = kContext;
  vm.vm_name = "pgtest1";
  vm.vm_path = "/DC1/vm/pgtest1";
  vm.vcenter_host = "vc1.example";
  vm.credentials = {engine::CredentialsRef::Kind::reference, "vc1"};
  vm.expected_interval_seconds = 90000;
  vm.created_at = vm.updated_at = sample_time();
  engine::VmDisk disk;
  disk.id = 1;
  disk.context_id = kContext;
  disk.key = 2000;
  disk.capacity_bytes = kBytes[0];
  disk.unit_number = 0;
  disk.label = "Hard disk 1";
  disk.change_id = kChangeId;
  disk.created_at = disk.updated_at = sample_time();
  vm.disks = {disk};
  disk.id = 2;
  disk.key = 2001;
  disk.index = 1;
  disk.capacity_bytes = kBytes[1];
  disk.unit_number = std::nullopt;
  disk.label = disk.change_id = "";
  vm.disks.push_back(disk);
  return vm;
}

engine::ListedVm listed_vm() {
  engine::ListedVm listed{.vm = vm(), .disk_count = 2, .capacity_bytes = kBytes[0] + kBytes[1]};
  listed.vm.disks.clear();
  listed.last_point = {.context_id = kContext,
                       .job_id = "backup-pgtest1-1759913694",
                       .repository_id = "1",
                       .type = engine::BackupType::incremental,
                       .completed_at = sample_time() + std::chrono::seconds(164),
                       .allocated_bytes = 47255552,
                       .chain_length = 2,
                       .verified_at = sample_time() + std::chrono::hours(4),
                       .verification = "sound"};
  return listed;
}

engine::VmView vm_view() { return {vm(), std::nullopt, {}}; }

engine::ExportView ingest_export() {
  engine::ExportView view;
  view.name = "pgtest1-1759913694-disk0";
  view.backup_id = "backup-pgtest1-1759913694";
  view.vm_name = "pgtest1";
  view.size_bytes = kBytes[0];
  view.state = "transferring";
  view.port = 10100;
  view.uris = {"nbd://127.0.0.1:10100/pgtest1-1759913694-disk0",
               "nbd://127.0.0.1:10809/pgtest1-1759913694-disk0"};
  view.connections = 2;
  view.bytes_received = 1048576;
  view.in_flight_bytes = 65536;
  view.opened_at = sample_time();
  return view;
}

engine::PortsStatus ports() {
  engine::PortsStatus status;
  status.range_start = 10100;
  status.range_end = 10200;
  status.allocations = {
      {10100, "backup-pgtest1-1759913694", "pgtest1", "pgtest1-1759913694-disk0", sample_time()},
      {10101, "backup-pgtest1-1759913694", "pgtest1", "pgtest1-1759913694-disk1", sample_time()}};
  status.blocked = {10107};
  return status;
}

engine::MetricsSnapshot metrics() {
  engine::MetricsSnapshot snapshot;
  snapshot.jobs = {{engine::JobState::running, 1}, {engine::JobState::completed, 3}};
  snapshot.backups_total = {{"completed", engine::BackupType::full, 2}};
  snapshot.nbd_connections = 2;
  snapshot.nbd_requests_total = {{"write", "ok", 32}};
  snapshot.nbd_request_seconds = {{0.001, 0.01}, {30, 1, 1}, 0.25};
  snapshot.bytes_received = 1048576;
  snapshot.verified_images_total = {
      {engine::VerificationOrigin::scrub, engine::VerificationResult::sound, 3}};
  snapshot.verified_bytes_total = {{engine::VerificationOrigin::scrub, 65536}};
  snapshot.points = {{"never", 1}, {"sound", 3}};
  snapshot.ports_allocated = 2;
  const engine::StorageInfo space = storage();
  snapshot.repositories = {{"1", true,
                            engine::StorageMeasure{space.total_bytes, space.used_bytes,
                                                   space.available_bytes, space.last_check_at},
                            10000000},
                           {"nas", false, std::nullopt, 0}};
  snapshot.seal_seconds = {{1}, {2, 0}, 0.5};
  snapshot.flags_total = {{engine::WarningCode::encrypted, 1}};
  snapshot.node_calls_total = {{"accepted", 4}};
  engine::Vm silent = vm();
  silent.vm_name = "pg\"test\"\\1\n";
  silent.last_good_at = silent.last_verified_at = sample_time();
  silent.expected_interval_seconds = 90000;
  silent.overdue = true;
  engine::Vm unexpected = vm();
  unexpected.expected_interval_seconds = 0;
  snapshot.vms = {silent, unexpected};
  snapshot.chains = {{"pgtest1", "1", 0, 12}};
  snapshot.running_jobs = {{"pgtest1", sample_time()}};
  snapshot.job_failures_total = {{engine::FailureCode::stalled, 2}};
  snapshot.start_refusals_total = {{"no_space", 1}};
  snapshot.exports = {{engine::ExportKind::ingest, 2}};
  snapshot.tasks_running = {{"promotion", 0}, {"verification", 1}};
  snapshot.restores = 1;
  snapshot.events_total = {{engine::NotificationEvent::failed, 2}};
  snapshot.notifications_total = {{"url", "delivered", 2}};
  snapshot.ready = true;
  return snapshot;
}

}  // namespace api_tests
