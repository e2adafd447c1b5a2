// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/values/notification.h"
#include "engine/values/retention.h"
#include "engine/values/storage_abilities.h"
#include "engine/values/types.h"

/// What the facade answers: the rows of engine/values/types.h together with what only a running
/// engine knows. api formats them and adds nothing but words. Plain values, usable on any thread.
/// Sizes are bytes; "" and nullopt mean "none".
namespace engine {

// ---- backups ----

struct BackupView {
  Job job;                          ///< the counters of its disks are live while it is active
  uint64_t transfer_speed_bps = 0;  ///< telemetry's if younger than 30 s, else measured over 10 s
  double progress_percent = 0;      ///< 100 only when completed
  /// Until the client has sent everything; nothing when nobody can know: how much an incremental
  /// sends is known to its client alone.
  std::optional<uint64_t> seconds_left = std::nullopt;
};

struct BackupList {
  std::vector<BackupView> backups;  ///< newest first
  uint64_t total = 0;               ///< matches before limit and offset
};

struct BackupDiskView {
  JobDisk disk;                ///< with live counters
  std::vector<Warning> flags;  ///< of this disk (signals.h)
  std::vector<Point> history;  ///< the disk's points before this one, newest first
  double progress_percent = 0;
  uint32_t connections = 0;
  std::optional<Time> last_request_at;
};

struct ChainPoint {
  Point point;
  BackupView backup;  ///< the job that made it
};

/// One generation; no points: nothing was published yet.
struct ChainView {
  std::string context_id, vm_name, repository_id;
  uint32_t disk_index = 0, generation = 0;
  std::vector<ChainPoint> points;  ///< by position; the full first
};

/// A restore point as readers reach it.
struct PointView {
  Point point;
  std::string export_name;
  std::vector<std::string> uris;
  RetentionLock lock;
};

/// A restore as its clients reach it.
struct RestoreView {
  Restore restore;
  struct Disk {
    std::vector<std::string> uris;
    uint64_t written_bytes = 0;  ///< disk space of the overlay; 0 while it is away
  };
  std::vector<Disk> disks;  ///< in the order of restore.disks
};

/// What differs between two points of a disk. Writing these ranges of the newer one over the older
/// one gives the newer one.
struct ChangesView {
  std::string backup_id, since;
  uint32_t disk_index = 0;
  uint64_t size_bytes = 0;  ///< of the newer point
  struct Range {
    uint64_t offset = 0, length = 0;  ///< bytes
    bool zero = false;                ///< reads as zeroes in the newer point
  };
  std::vector<Range> ranges;              ///< ascending, apart from each other
  std::optional<uint64_t> next_offset{};  ///< of the next page; nothing after the last one
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const Range& range : ranges) sum += range.length;
    return sum;
  }
};

/// `complete` has been carried out for one disk, now or earlier.
struct CompletedDisk {
  uint32_t disk_index = 0;
  JobState job_state = JobState::running;
  uint32_t disks_completed = 0;  ///< sealed or completed
  uint32_t disks_total = 0;
};

/// The completed backups that began on a day of UTC.
struct BackupDay {
  Time date{};  ///< its midnight
  uint64_t backup_count = 0;
  uint64_t bytes_received = 0, bytes_stored = 0;
  uint64_t seconds = 0;  ///< from start to end, of all of them
};

struct DeletedBackup {
  std::vector<std::string> deleted;  ///< job ids, in the order of deletion
  uint64_t freed_bytes = 0;
};

struct ChangeIdAnswer {
  std::string change_id;   ///< "": the client copies in full
  std::string job_id;      ///< the job that recorded it; "" when there is none
  bool ambiguous = false;  ///< the name fits several VMs (row 10)
};

/// GET /backups/stats.
struct BackupStats {
  uint64_t backup_count = 0;      ///< completed jobs
  uint64_t total_size_bytes = 0;  ///< sum of their WRITE payload
  std::optional<Time> last_backup_at;
};

struct TelemetryHistory {
  BackupView backup;
  enum class Source : uint8_t { none, live_snapshots, rolled_up };
  Source source = Source::none;         ///< rolled_up: thinned out because the samples were full
  std::vector<ProgressSample> samples;  ///< by time; the newest `limit` of them
  uint64_t duration_seconds = 0, snapshots_recorded = 0;
  uint64_t peak_speed_bps = 0, avg_speed_bps = 0, min_speed_bps = 0;
};
template <>
inline constexpr auto kWords<TelemetryHistory::Source> = words("none", "live_snapshots",
                                                               "rolled_up");

// ---- repositories ----

struct StorageInfo {
  std::string repository_id;
  uint64_t total_bytes = 0, used_bytes = 0, available_bytes = 0;
  uint64_t backup_count = 0;  ///< completed jobs
  Time last_check_at{};
};

struct RepositoryView {
  Repository repository;
  uint64_t backup_count = 0;                  ///< completed jobs, for its storage_info
  std::optional<StorageAbilities> abilities;  ///< as last found; nothing before the first test
  std::string unavailable_cause;              ///< why it cannot be used now; "" when it can
};

struct RepositoryTest {
  bool passed = false;
  std::optional<StorageInfo> storage;           ///< when passed
  std::string error_details;                    ///< when not
  std::optional<StorageAbilities> abilities{};  ///< when passed
};

struct StorageRefresh {
  uint64_t refreshed_count = 0, failed_count = 0;
};

// ---- VM contexts ----

struct VmView {
  Vm vm;
  std::optional<BackupView> current_job;
  std::vector<BackupView> job_history;  ///< the last 10, newest first
};

/// The newest completed backup of a VM, all its disks.
struct LastPoint {
  std::string context_id, job_id, repository_id;
  BackupType type = BackupType::full;
  Time completed_at{};
  uint64_t allocated_bytes = 0;     ///< of its images
  uint32_t chain_length = 0;        ///< points of its longest chain up to it, the full included
  std::optional<Time> verified_at;  ///< of the image that was proven first; nothing: not all were
  std::string verification;         ///< the worst VerificationResult; "": not all were proven
};

/// A VM in a list: what an overview of many shows.
struct ListedVm {
  Vm vm;                        ///< without its disks
  uint64_t disk_count = 0;      ///< that are backed up
  uint64_t capacity_bytes = 0;  ///< of these
  std::optional<LastPoint> last_point;
  uint64_t damaged_points = 0;  ///< images that were damaged at their last verification
};

struct PutVmResult {
  bool created = false;
  VmView vm;
};

// ---- NBD and service state ----

enum class ExportKind : uint8_t { ingest, point, temporary };
template <>
inline constexpr auto kWords<ExportKind> = words("ingest", "point", "temporary");

struct ExportView {
  std::string name;
  ExportKind kind = ExportKind::ingest;
  std::string backup_id, vm_name;
  uint32_t disk_index = 0;
  bool read_only = false;
  uint64_t size_bytes = 0;
  std::string state;  ///< the disk's, "open" for the others
  uint16_t port = 0;  ///< its own; 0 when it is reached by name only
  std::vector<std::string> uris;
  uint32_t connections = 0;
  uint64_t bytes_received = 0, bytes_zeroed = 0, bytes_read = 0, in_flight_bytes = 0;
  Time opened_at{};
  std::optional<Time> last_request_at;
};

struct PortAllocation {
  uint16_t port = 0;
  std::string job_id, vm_name, export_name;
  Time allocated_at{};
};

struct PortsStatus {
  uint16_t range_start = 0, range_end = 0;  ///< both 0 when no range is configured
  std::vector<PortAllocation> allocations;  ///< ascending port
  std::vector<uint16_t> blocked;            ///< found taken by other programs
  uint32_t total_ports() const {
    return range_start == 0 ? 0 : static_cast<uint32_t>(range_end) - range_start + 1;
  }
};

struct HealthView {
  bool catalogue_open = false;
  bool recovered = false;  ///< restart recovery is over
  bool shutting_down = false;
  std::map<std::string, std::string> unavailable_repositories;  ///< cause by id
  bool catalogue_writable = true;                               ///< as last tried
  bool ready() const { return catalogue_open && recovered && !shutting_down && catalogue_writable; }
};

/// A Prometheus histogram before its buckets are summed up.
struct Histogram {
  std::vector<double> bounds_seconds;  ///< upper bounds, ascending, without +Inf
  std::vector<uint64_t> counts;        ///< one per bound and one for +Inf, each on its own
  double sum_seconds = 0;
};

struct MetricsSnapshot {
  std::map<JobState, uint64_t> jobs;  ///< a state that is missing counts 0
  struct BackupsTotal {
    std::string result;  ///< "completed", "failed", "cancelled"
    BackupType type = BackupType::full;
    uint64_t count = 0;
  };
  std::vector<BackupsTotal> backups_total;
  uint64_t nbd_connections = 0;
  struct RequestsTotal {
    std::string command;  ///< "write", "write_zeroes", ...
    std::string result;   ///< "ok" or "error"
    uint64_t count = 0;
  };
  std::vector<RequestsTotal> nbd_requests_total;
  Histogram nbd_request_seconds;
  uint64_t bytes_received = 0, bytes_zeroed = 0, bytes_elided = 0, bytes_stored = 0, bytes_read = 0;
  struct VerifiedImages {
    VerificationOrigin begun_by = VerificationOrigin::request;
    VerificationResult result = VerificationResult::sound;
    uint64_t count = 0;
  };
  std::vector<VerifiedImages> verified_images_total;
  std::map<VerificationOrigin, uint64_t> verified_bytes_total;
  /// Published images by their last proof, "never" without one.
  std::map<std::string, uint64_t> points;
  uint64_t ports_allocated = 0;
  struct RepositoryState {
    std::string id;
    bool available = true;
    std::optional<StorageMeasure> space;  ///< as last measured; nothing before the first time
    uint64_t reserve_bytes = 0;
  };
  std::vector<RepositoryState> repositories;
  Histogram seal_seconds;
  std::map<WarningCode, uint64_t> flags_total;
  std::map<std::string, uint64_t> node_calls_total;  ///< by result: "accepted", "refused", ...

  /// By VM name; with the interval that holds for it.
  std::vector<Vm> vms;
  std::vector<ChainLength> chains;
  struct RunningJob {
    std::string vm_name;
    Time last_traffic_at{};  ///< of its exports, or its beginning
  };
  std::vector<RunningJob> running_jobs;
  std::map<FailureCode, uint64_t> job_failures_total;
  std::map<std::string, uint64_t> start_refusals_total;  ///< by the refusal's code
  std::map<ExportKind, uint64_t> exports;                ///< open; of one kind: 0 when missing
  std::map<std::string, uint64_t> tasks_running;         ///< "promotion", "scrub", "verification"
  uint64_t restores = 0;
  std::map<NotificationEvent, uint64_t> events_total;
  std::vector<DeliveryCount> notifications_total;
  bool ready = false, catalogue_writable = true;
};

}  // namespace engine
