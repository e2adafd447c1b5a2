// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/values/types.h"

/// What the facade is asked: plain values, already free of HTTP and JSON, with the member names of
/// docs/http-api.md. Sizes are bytes unless the name says otherwise; "" means "not given".
namespace engine {

/// POST /backups.
struct StartBackup {
  std::string vm_name;  ///< registered name, or an inventory name that exactly one VM has
  BackupType backup_type = BackupType::full;  ///< never differential
  std::string repository_id;
  BackupClient client = BackupClient::node;  ///< external: no node is called
  bool into_chain = false;    ///< full: disks that have a point store what differs from it
  std::string base;           ///< backup id or change id that the writer's changes are against
  bool keep_partial = false;  ///< if it fails, what has arrived stays for a job that resumes it
  /// A failed job whose transfer goes on. It says VM, repository, type and client; of these only
  /// those that are given are compared.
  std::string resume;
  std::string policy_id;  ///< stored and echoed, like the tags
  Tags tags;
};

/// POST /backups/{backup_id}/complete.
struct CompleteDisk {
  std::string backup_id;
  std::string change_id;            ///< not empty; kept byte for byte
  std::optional<uint32_t> disk_id;  ///< disk index; absent is not 0: see select_completed_disk
};

/// GET /backups: every filter that is set must match.
struct BackupFilter {
  std::string vm_name, vm_context_id, repository_id;
  std::optional<ShownStatus> status;
  std::optional<BackupType> backup_type;
  uint64_t limit = 100, offset = 0;
};

/// GET /backups/by-day.
struct BackupDaysQuery {
  std::string vm_name;        ///< as registered; "": of all VMs
  std::string repository_id;  ///< "": of all
  uint32_t days = 30;         ///< the last ones, with the present one
};

/// GET /backups/chain.
struct ChainQuery {
  std::string vm_name, vm_context_id;  ///< at least one is given; the context id wins
  std::string repository_id;           ///< "": that of the VM's newest point
  uint32_t disk_id = 0;
  std::optional<uint32_t> generation;  ///< absent: the newest
};

/// GET /points.
struct PointQuery {
  std::string vm_name;              ///< as registered; "": of all VMs
  std::optional<uint32_t> disk_id;  ///< disk index; absent: of all disks
  std::string point;  ///< backup id, "latest" (also of all VMs) or RFC 3339 time; "": all
  uint64_t limit = 1000, offset = 0;
};

/// POST /restores.
struct NewRestore {
  std::string backup_id;
  std::optional<uint32_t> disk_id;  ///< disk index; absent: all disks of the backup
  RestoreMode mode = RestoreMode::read_only;
  std::optional<uint64_t> size_limit_bytes;  ///< of each overlay; of writable ones only
  std::optional<uint64_t> expires_in_seconds;
};

/// POST /restores/{restore_id}/promote.
struct NewPromotion {
  std::string path;                  ///< absolute
  std::optional<DiskFormat> format;  ///< absent: as the path's ending says, else qcow2
};

/// POST /verifications, and /backups/{backup_id}/verify.
struct NewVerification {
  /// Who reads the content. What libqcow cannot read, varve's own reader does in any case.
  bool by_varve = true, by_libqcow = true;
  std::string backup_id;          ///< with all that it stands on; "": not one backup
  std::string vm_name;            ///< its points; "" as well: every point there is
  uint32_t skip_days = 0;         ///< images that were found sound so recently are left out
  uint64_t bytes_per_second = 0;  ///< read at most; 0: as fast as it goes
};

/// GET /backups/{backup_id}/changes.
struct ChangesQuery {
  std::string backup_id;
  std::string since;  ///< the older backup's id
  uint32_t disk_id = 0;
  uint64_t offset = 0;     ///< bytes of the disk, where this page begins
  uint64_t limit = 10000;  ///< ranges
};

/// GET /backups/changeid: the client with telemetry.
struct ChangeIdQuery {
  std::string vm_name;              ///< registered or inventory name
  std::optional<uint32_t> disk_id;  ///< disk index as asked; change_id.h says what 0 and none mean
  std::string repository_id;        ///< "": all
};

/// GET /replications/changeid: client 1.0.1.
struct ChangeIdByPathQuery {
  std::string vm_path;
  std::string disk_id;  ///< "disk-2000" as asked; "" when not asked
};

/// POST /telemetry. Only what is not empty or zero overwrites.
struct Telemetry {
  std::string status;  ///< only "failed" changes a job
  std::string current_phase;
  uint64_t bytes_transferred = 0, total_bytes = 0, transfer_speed_bps = 0, eta_seconds = 0;
  double progress_percent = 0;
  std::optional<std::string> error;  ///< its message; the job fails with it
};

/// POST /repositories. Its configuration has passed check_repository_config; its id may be "", for
/// repo-<type>-<unix seconds>.
using NewRepository = Repository;

struct RepositoryFilter {
  std::optional<RepositoryType> type;
  std::optional<bool> enabled;
};

/// What a registration does to the stored credentials.
struct CredentialsChange {
  enum class Kind : uint8_t { keep, remove, reference, inline_secret };
  Kind kind = Kind::keep;
  std::string reference;           ///< of Kind::reference
  std::string username, password;  ///< of Kind::inline_secret; never logged, never returned
};

/// What a registration does to the interval at which good points are expected.
struct ExpectedIntervalChange {
  bool is_given = false;            ///< else it stays as it was
  std::optional<uint64_t> seconds;  ///< 0: none; nothing: as the server says of all VMs
};

struct NewVmDisk {
  std::string disk_id;  ///< "disk-<VMware key>"; well formed and unique
  uint64_t capacity_bytes = 0;
  std::optional<int64_t> unit_number;
  std::string label, vmdk_path, datastore;
};

/// PUT /vm-contexts/{vm_name}, already checked for form.
struct PutVmContext {
  std::string vm_name;
  std::string vm_path, vcenter_host;
  CredentialsChange credentials;
  std::vector<NewVmDisk> disks;  ///< at least one
  std::string vmware_vm_id, datacenter, power_state, os_type;
  ExpectedIntervalChange expected_interval;
  bool move = false;  ///< ?move=true: another vcenter_host is meant
};

}  // namespace engine
