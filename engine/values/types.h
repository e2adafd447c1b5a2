// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// The plain values inside the engine: what catalogue, jobs, publish and recovery hand to each
/// other. What the facade is asked lies in requests.h, what it answers in views.h.
///
/// Invariant: values only. Nothing here does I/O, owns a resource or belongs to a thread.
/// An empty string means "none", where no other meaning is written beside it.
namespace engine {

/// UTC with second precision, as every time in the API, the catalogue and the files. Converts to
/// WallTime by itself; the other way takes std::chrono::floor<std::chrono::seconds>.
using Time = std::chrono::sys_seconds;
using WallTime = std::chrono::system_clock::time_point;

using Tags = std::map<std::string, std::string>;

// ---------------------------------------------------------------- states, types, their texts

/// Spec: docs/jobs.md, "States".
enum class JobState : uint8_t { preparing, running, finalizing, completed, failed, cancelled };
enum class DiskState : uint8_t { pending, transferring, sealing, sealed, completed, failed };

/// What the member `status` of a job or a disk shows; coarser than the state.
enum class ShownStatus : uint8_t { pending, running, completed, failed, cancelled };

/// `differential` occurs only in rows imported from the old hub.
enum class BackupType : uint8_t { full, incremental, differential };

/// Who writes a backup: the existing client, which the node API starts, or whoever asked for it.
enum class BackupClient : uint8_t { node, external };

/// cifs and smb mean the same; both words are kept as they were registered.
enum class RepositoryType : uint8_t { local, nfs, cifs, smb };

/// Spec: docs/jobs.md, "Warnings".
enum class WarningCode : uint8_t {
  sampled_zeroes,
  full_not_covered,
  change_tracking_reset,
  change_id_unusable,
  disk_added,
  disk_shrunk,
  long_chain,
  encrypted,
  entropy_jump,
  wrong_disk,
  layout_changed,
};

/// Why a job failed, as far as a monitor tells failures apart; the cause in words stands beside it.
enum class FailureCode : uint8_t {
  never_connected,  ///< no client came to an export
  disconnected,     ///< a client left and did not come back
  stalled,          ///< no bytes for too long
  max_duration,     ///< longer than a job may take
  client,           ///< the client said so
  not_started,      ///< the start was rolled back: node, ports, space, images
  storage,          ///< an image could not be written, sealed or published
  space,            ///< the repository was down to its reserve
  shutdown,         ///< varve was stopped
  restart,          ///< varve or its machine died, or the repository went with it
};

/// Who took a telemetry sample.
enum class SampleSource : uint8_t { client, server };

/// The words of API, catalogue and files, which are the enumerators' names, in their order.
template <typename... Words>
constexpr std::array<std::string_view, sizeof...(Words)> words(Words... words) {
  return {words...};
}
template <typename Enum>
inline constexpr auto kWords = words();
template <>
inline constexpr auto kWords<JobState> = words("preparing", "running", "finalizing", "completed",
                                               "failed", "cancelled");
template <>
inline constexpr auto kWords<DiskState> = words("pending", "transferring", "sealing", "sealed",
                                                "completed", "failed");
template <>
inline constexpr auto kWords<ShownStatus> = words("pending", "running", "completed", "failed",
                                                  "cancelled");
template <>
inline constexpr auto kWords<BackupType> = words("full", "incremental", "differential");
template <>
inline constexpr auto kWords<BackupClient> = words("node", "external");
template <>
inline constexpr auto kWords<RepositoryType> = words("local", "nfs", "cifs", "smb");
template <>
inline constexpr auto kWords<WarningCode> = words("sampled_zeroes", "full_not_covered",
                                                  "change_tracking_reset", "change_id_unusable",
                                                  "disk_added", "disk_shrunk", "long_chain",
                                                  "encrypted", "entropy_jump", "wrong_disk",
                                                  "layout_changed");
template <>
inline constexpr auto kWords<FailureCode> = words("never_connected", "disconnected", "stalled",
                                                  "max_duration", "client", "not_started",
                                                  "storage", "space", "shutdown", "restart");
template <>
inline constexpr auto kWords<SampleSource> = words("client", "server");

template <typename Enum>
requires(!kWords<Enum>.empty()) constexpr std::string_view to_text(Enum value) {
  return kWords<Enum>.at(static_cast<size_t>(value));
}

/// The value whose word is `text`: from_text<JobState>("running"). Nothing for other words.
template <typename Enum>
requires(!kWords<Enum>.empty()) constexpr std::optional<Enum> from_text(std::string_view text) {
  const auto found = std::find(kWords<Enum>.begin(), kWords<Enum>.end(), text);
  if (found == kWords<Enum>.end()) return std::nullopt;
  return static_cast<Enum>(found - kWords<Enum>.begin());
}

ShownStatus shown_status(JobState state);
ShownStatus shown_status(DiskState state);

/// Preparing, running or finalizing. A VM has at most one such job.
bool is_active(JobState state);
/// Sealed or completed: the disk takes no more writes and has its change id.
bool is_sealed(DiskState state);

/// Stored but never handed out unless it holds exactly one '/'.
bool change_id_is_usable(std::string_view change_id);
/// The part before '/', which names one disk's change tracking since its last reset.
std::string_view change_id_uuid(std::string_view change_id);

// ---------------------------------------------------------------- VMs

/// Where a VM's vCenter credentials are. Never the credentials.
struct CredentialsRef {
  enum class Kind : uint8_t { none, reference, inline_secret };
  Kind kind = Kind::none;
  std::string ref;  ///< name of a configured secret; "" unless Kind::reference

  bool operator==(const CredentialsRef&) const = default;
};
template <>
inline constexpr auto kWords<CredentialsRef::Kind> = words("none", "reference", "inline");

/// The secret itself. Never in the catalogue, never in an answer, never in a log.
struct Credentials {
  std::string username;
  std::string password;

  bool operator==(const Credentials&) const = default;
};

struct VmDisk {
  int64_t id = 0;  ///< row number
  std::string context_id;
  uint32_t key = 0;  ///< VMware disk key
  /// Assigned once, never reused: "disk-<index>" in the repository, `disk_id` in the API.
  uint32_t index = 0;
  uint64_t capacity_bytes = 0;
  std::optional<int64_t> unit_number;
  std::string label, vmdk_path, datastore;
  std::string change_id;  ///< newest completed and usable one, over all repositories
  bool removed = false;   ///< missing in the last registration: kept, not backed up
  Time created_at, updated_at;
};

/// GiB, rounded up.
constexpr uint64_t size_gb(uint64_t capacity_bytes) {
  return (capacity_bytes >> 30) + ((capacity_bytes & ((uint64_t{1} << 30) - 1)) != 0);
}
static_assert(size_gb(109521666048) == 102 && size_gb(1) == 1 && size_gb(1 << 30) == 1);

/// "disk-2016" for key 2016, and back; nothing unless ^disk-[0-9]{1,9}$.
std::string vmware_disk_id(uint32_t key);
std::optional<uint32_t> vmware_disk_key(std::string_view disk_id);

/// The last part of an inventory path: "pgtest1" of "/DC1/vm/pgtest1".
std::string_view inventory_name(std::string_view vm_path);

/// Whether a VM is silent: its newest good point, or without one its registration, is older than
/// the interval. 0: it never is. A time that lies ahead by more than the interval comes of a wrong
/// clock and says nothing of its age: an alarm is better than years without one.
constexpr bool is_overdue(uint64_t expected_interval_seconds, Time newest, Time now) {
  if (expected_interval_seconds == 0) return false;
  const auto apart = now > newest ? now - newest : newest - now;
  return static_cast<uint64_t>(apart.count()) > expected_interval_seconds;
}

struct Vm {
  std::string context_id;
  std::string vm_name;
  std::string safe_name;  ///< what the names of jobs, exports and images are made of (names.h)
  std::string vm_path, vcenter_host;
  CredentialsRef credentials;
  std::string vmware_vm_id, datacenter, power_state, os_type;
  std::vector<VmDisk> disks;  ///< ascending index, removed ones included
  /// How often a good point is expected. 0: never. Nothing: as the options say, which the engine
  /// fills in for those above it.
  std::optional<uint64_t> expected_interval_seconds;
  Time created_at, updated_at;

  // Derived from the VM's jobs.
  std::string current_job_id;                 ///< the active job; "" when idle
  std::string current_status = "discovered";  ///< "completed" or "failed" by the last ended job
  uint64_t total_jobs_run = 0, successful_jobs = 0, failed_jobs = 0;
  std::string last_successful_job_id;
  std::optional<Time> first_job_at, last_job_at, last_status_change;
  /// When its newest backup of which no image was found damaged was completed, and the newest of
  /// which every image was found sound.
  std::optional<Time> last_good_at, last_verified_at;
  // For those above the engine.
  bool overdue = false;         ///< no good point is as new as expected
  bool secret_missing = false;  ///< credentials refer to a secret that is not configured
};

// ---------------------------------------------------------------- repositories

/// The space of a repository, as last measured.
struct StorageMeasure {
  uint64_t total_bytes = 0, used_bytes = 0, available_bytes = 0;
  Time measured_at;
};

struct Repository {
  std::string id;
  std::string name;  ///< unique
  RepositoryType type = RepositoryType::local;
  bool enabled = true;
  std::string config_json = "{}";  ///< one JSON object, without password_secret
  std::string directory;           ///< absolute: the config's path or mount_point
  std::string marker_id;           ///< in the directory's marker file; "" before there was one
  bool is_immutable = false;
  int64_t min_retention_days = 0;
  std::optional<StorageMeasure> storage;
  Time created_at, updated_at;
};

// ---------------------------------------------------------------- jobs

struct Warning {
  WarningCode code = WarningCode::sampled_zeroes;
  std::optional<uint32_t> disk_index;
  std::string message;

  bool operator==(const Warning&) const = default;
};

/// What varve counted while a disk was written. Zeroes until the first record.
struct DiskCounters {
  uint64_t bytes_received = 0;  ///< payload of WRITE
  uint64_t bytes_zeroed = 0;    ///< WRITE_ZEROES and TRIM
  uint64_t bytes_elided = 0;    ///< equal to what the chain holds, and not stored
  uint64_t bytes_stored = 0;    ///< allocated for guest data in the file
  uint64_t covered_bytes = 0;   ///< of the disk, touched by any WRITE or WRITE_ZEROES at least once
  /// WRITE_ZEROES of 4 MiB or more, of a client that looked at 40 KiB of each.
  uint64_t sampled_zero_requests = 0;
  uint64_t sampled_zero_bytes = 0;
  // Estimates of what bytes_received holds, by samples (engine/ingest/entropy_sampler.h).
  uint64_t judged_bytes = 0;          ///< what the samples stand for; 0: nothing is known
  uint64_t incompressible_bytes = 0;  ///< encrypted or compressed
  uint64_t zero_data_bytes = 0;       ///< zeroes that came as data
  uint64_t resumed_bytes = 0;  ///< of bytes_received, by the interrupted job that this one resumes

  bool operator==(const DiskCounters&) const = default;
};

/// Where a point lies in the chains of its disk: its generation (1, 2, ...), which begins with a
/// full, and its position there (0 is the full).
struct ChainPlace {
  uint32_t generation = 0, position = 0;

  auto operator<=>(const ChainPlace&) const = default;
};

/// One disk of a job; one image.
struct JobDisk {
  int64_t id = 0;  ///< row number
  std::string job_id;
  uint32_t index = 0;  ///< `disk_id` elsewhere
  uint32_t key = 0;    ///< VMware disk key
  uint64_t capacity_bytes = 0;
  std::optional<int64_t> unit_number;
  std::string vmdk_path, datastore;  ///< as registered when the job began
  DiskState state = DiskState::pending;
  BackupType type = BackupType::full;  ///< full: the image stands alone
  std::string image_id;                ///< file stem
  std::string image_uuid;              ///< in the image's record; "" in rows of earlier versions
  std::string image_path;              ///< final absolute path; until publish "<path>.partial"
  std::string parent_image_id, parent_job_id;
  /// Usable change id of the parent, which the client is given; constant while the job runs.
  std::string parent_change_id;
  std::string handed_out_change_id;  ///< what was really answered; "" until asked
  std::string change_id;             ///< recorded by `complete`
  std::string export_name;
  uint16_t port = 0;  ///< 0 once released
  DiskCounters counters;
  bool ever_connected = false;
  uint64_t file_bytes = 0;       ///< length of the image, once sealed
  uint64_t allocated_bytes = 0;  ///< disk space of the image, once sealed
  /// SHA-256 of the image's manifest and of its parent's sidecar, 64 digits each. "": not sealed, a
  /// point of earlier versions, and the latter of a full.
  std::string sums_sha256, parent_root;
  ChainPlace place;  ///< generation 0 until the decision to publish
  std::string error_message;
  Time created_at;
  std::optional<Time> completed_at;  ///< sealed, or failed

  bool operator==(const JobDisk&) const = default;
};

/// The client's last words about a job. Zeroes and "" mean that it never said.
struct TelemetryState {
  std::string current_phase;
  uint64_t bytes_transferred = 0, total_bytes = 0, transfer_speed_bps = 0, eta_seconds = 0;
  double progress_percent = 0;
  std::optional<Time> last_at;

  bool operator==(const TelemetryState&) const = default;
};

struct Job {
  std::string id;
  std::string context_id, vm_name, repository_id, policy_id;
  std::string vm_path, vcenter_host, vmware_vm_id;  ///< as registered when the job began
  BackupType type = BackupType::full;               ///< as asked for
  BackupClient client = BackupClient::node;
  JobState state = JobState::preparing;
  Tags tags;
  std::string nbd_targets;  ///< sent to the node API; "" once the job has ended
  std::string error_message;
  Time created_at;
  std::optional<Time> started_at, completed_at;  ///< completed_at: ended, in whatever way
  std::optional<Time> decided_at;                ///< finalizing since; becomes completed_at
  TelemetryState telemetry;
  std::vector<Warning> warnings;
  std::vector<JobDisk> disks;  ///< ascending index
  bool deleting = false;       ///< its rows and files are being removed
  bool keep_partial = false;   ///< when it fails, what has arrived stays for another job
  std::string resumes;         ///< the failed job whose images it goes on with
  /// Failed, and what has arrived is still there: another job can resume it.
  bool kept = false;

  uint64_t bytes_received() const {
    uint64_t sum = 0;
    for (const JobDisk& disk : disks) sum += disk.counters.bytes_received;
    return sum;
  }
  uint64_t resumed_bytes() const {
    uint64_t sum = 0;
    for (const JobDisk& disk : disks) sum += disk.counters.resumed_bytes;
    return sum;
  }
  uint64_t capacity_bytes() const {
    uint64_t sum = 0;
    for (const JobDisk& disk : disks) sum += disk.capacity_bytes;
    return sum;
  }
  /// The whole disks were asked for, and some store what differs from their newest point.
  bool into_chain() const {
    if (type != BackupType::full) return false;
    for (const JobDisk& disk : disks) {
      if (disk.type == BackupType::incremental) return true;
    }
    return false;
  }
  /// What bytes_received() grows towards, never less: what the client says, or the sizes of the
  /// disks. A client says it of the disk that it copies, which is the job only when there is one.
  uint64_t total_bytes() const {
    const bool is_said = disks.size() == 1 && telemetry.total_bytes != 0;
    const uint64_t total = is_said ? telemetry.total_bytes : capacity_bytes();
    return total < bytes_received() ? bytes_received() : total;
  }
  bool operator==(const Job&) const = default;
};

// ---------------------------------------------------------------- points and chains

/// A published image: one disk of one completed job.
struct Point {
  std::string image_id, image_path;
  std::string job_id, context_id, vm_name, repository_id;
  uint32_t disk_index = 0, disk_key = 0;
  ChainPlace place;
  BackupType type = BackupType::full;
  uint64_t capacity_bytes = 0;
  std::string change_id;
  std::string parent_image_id, parent_job_id;
  uint64_t file_bytes = 0, allocated_bytes = 0, bytes_stored = 0;
  DiskCounters counters;            ///< zeroes where the catalogue was rebuilt from the files
  std::vector<Warning> warnings;    ///< of the job, all disks
  Time created_at;                  ///< of the job
  Time completed_at;                ///< of the job
  std::optional<Time> verified_at;  ///< last; nothing: never
  std::string verification;         ///< its VerificationResult; "": none
};

/// How many images are read together for the newest point of a disk in a repository.
struct ChainLength {
  std::string vm_name, repository_id;
  uint32_t disk_index = 0;
  uint64_t images = 0;
};

/// One generation of (VM, repository, disk): a full and the incrementals on it.
struct Chain {
  std::string id;  ///< chain-<ctx>-disk<N>-<repository>-g<generation>
  std::string context_id, vm_name, repository_id;
  uint32_t disk_index = 0, generation = 0;
  std::vector<Point> points;  ///< by position; the full first
  Time created_at, updated_at;
};

// ---------------------------------------------------------------- restores

enum class RestoreMode : uint8_t { read_only, writable };
template <>
inline constexpr auto kWords<RestoreMode> = words("read-only", "writable");

/// making: its overlays may be there or not. dropping: they are being removed, at the next start at
/// the latest.
enum class RestoreState : uint8_t { making, ready, dropping };
template <>
inline constexpr auto kWords<RestoreState> = words("making", "ready", "dropping");

/// One disk of a restore.
struct RestoreDisk {
  std::string restore_id;
  uint32_t disk_index = 0;
  std::string image_id;     ///< the point's
  std::string export_name;  ///< of a writable one: a secret of its own
  std::string path;         ///< of its overlay; "" when it is read-only
};

/// How the bytes of a disk lie in a file.
enum class DiskFormat : uint8_t { raw, qcow2 };
template <>
inline constexpr auto kWords<DiskFormat> = words("raw", "qcow2");

/// copying: "<path>.partial" may be there.
enum class PromotionState : uint8_t { copying, completed, failed, cancelled };
template <>
inline constexpr auto kWords<PromotionState> = words("copying", "completed", "failed", "cancelled");

/// A copy of a restore's disks outside the repository, which stands alone.
struct Promotion {
  std::string restore_id;
  std::string path;  ///< absolute; of several disks a directory of disk-<index>.<format>
  DiskFormat format = DiskFormat::qcow2;
  PromotionState state = PromotionState::copying;
  uint64_t total_bytes = 0;   ///< sizes of the disks
  uint64_t copied_bytes = 0;  ///< of those, holes too
  std::string error;          ///< why it failed
  Time started_at;
  std::optional<Time> ended_at;
};

/// Points that somebody works with: they stay until the restore is dropped.
struct Restore {
  std::string id;
  std::string job_id, vm_name, context_id, repository_id;
  RestoreMode mode = RestoreMode::read_only;
  RestoreState state = RestoreState::making;
  Time created_at;
  std::optional<Time> expires_at;
  std::optional<uint64_t> size_limit_bytes;  ///< of each overlay's file
  std::vector<RestoreDisk> disks;            ///< ascending index
  std::optional<Promotion> promotion;        ///< the last one
};

// ---------------------------------------------------------------- verification

/// damaged: something is not what was published. without_manifest: tables and sidecar are, and the
/// content cannot be proven, because the image is of an earlier version.
enum class VerificationResult : uint8_t { sound, damaged, without_manifest };
template <>
inline constexpr auto kWords<VerificationResult> = words("sound", "damaged", "without_manifest");

/// Guest bytes that are not what was sent.
struct Damage {
  uint64_t offset = 0, length = 0;  ///< guest bytes, whole clusters
  uint64_t host_offset = 0;         ///< where they lie in the image's file; 0: nowhere
  std::string what;

  bool operator==(const Damage&) const = default;
};

/// What a second implementation of QCOW2 has read of an image.
struct SecondReading {
  std::string reader = "libqcow";
  uint64_t stored_bytes = 0;    ///< of the clusters that the manifest names as stored
  uint64_t covered_bytes = 0;   ///< of those, what it read and was compared with what was sent
  uint64_t damaged_bytes = 0;   ///< of those, what was not the same
  std::string problem;          ///< why it did not read, or not all, as a sentence; no damage
  std::vector<Damage> damaged;  ///< the first ones; without host offsets

  bool operator==(const SecondReading&) const = default;
};

/// The last proof of one image.
struct ImageVerification {
  std::string image_id;
  std::string job_id, vm_name;  ///< whose it is
  uint32_t disk_index = 0;
  Time verified_at{};
  VerificationResult result = VerificationResult::sound;
  uint64_t data_bytes = 0;      ///< whose content varve's own reader compared with what was sent
  uint64_t zero_bytes = 0;      ///< zero by their mapping
  uint64_t damaged_bytes = 0;   ///< of both, by the reader that found most
  std::string problem;          ///< what else is wrong, as a sentence
  std::vector<Damage> damaged;  ///< the first ones that varve's own reader found
  std::optional<SecondReading> second_reader;  ///< none when it was not asked for, or not reached

  bool operator==(const ImageVerification&) const = default;
};

enum class VerificationState : uint8_t { running, completed, cancelled, failed };
template <>
inline constexpr auto kWords<VerificationState> = words("running", "completed", "cancelled",
                                                        "failed");

/// Who wanted a proof: a request, or varve itself on its schedule.
enum class VerificationOrigin : uint8_t { request, scrub };
template <>
inline constexpr auto kWords<VerificationOrigin> = words("request", "scrub");

/// A proof of several images, one after the other.
struct Verification {
  std::string id;
  VerificationOrigin begun_by = VerificationOrigin::request;
  std::string backup_id, vm_name;  ///< of what: a backup with all that it stands on, a VM, or all
  VerificationState state = VerificationState::running;
  uint64_t image_count = 0, skipped_count = 0;  ///< to be proven; proven not long ago
  uint64_t total_bytes = 0, read_bytes = 0;     ///< of the images' clusters
  Time started_at{};
  std::optional<Time> ended_at;
  std::string error;                         ///< why it failed
  std::vector<ImageVerification> images;     ///< as far as it has got
  std::vector<std::string> damaged_backups;  ///< backups that read damaged bytes, all of them
};

// ---------------------------------------------------------------- telemetry

/// A job's progress at one moment.
struct ProgressSample {
  uint64_t seconds = 0;  ///< since the job's start
  uint64_t bytes_per_second = 0;
  double percent = 0;
  std::string phase;
  SampleSource source = SampleSource::server;

  bool operator==(const ProgressSample&) const = default;
};

}  // namespace engine
