// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/values/types.h"

/// Which previous change id the existing client is told.
///
/// Invariant: an active full job hands out nothing, so its images are complete; an active
/// incremental job hands out only the change id of the image that is the backing of that disk, so
/// the client's delta starts exactly there. Spec: docs/jobs.md, "Change ids"; rows are numbered as
/// there. Pure: a decision over snapshots.
namespace engine {

/// A disk of an active job at this moment.
struct DiskSnapshot {
  uint32_t index = 0, key = 0;
  bool sealed = false;            ///< its `complete` was accepted: sealing, sealed or completed
  bool connected = false;         ///< an NBD connection is open, counted from before GO's answer
  uint64_t connect_sequence = 0;  ///< higher for the disk that connected later; 0: never
  std::string change_id;          ///< recorded by `complete`; "" before
  /// Usable id of the backing image, and the job that recorded it; "" when the image stands alone.
  std::string parent_change_id, parent_job_id;
};

struct JobSnapshot {
  std::string job_id;
  BackupType type = BackupType::full;
  std::vector<DiskSnapshot> disks;
};

/// The newest completed usable id of one disk, and the job that recorded it.
struct NewestChangeId {
  uint32_t index = 0, key = 0;
  std::string change_id, job_id;

  bool operator==(const NewestChangeId&) const = default;
};

/// One VM that the client may mean.
struct VmSnapshot {
  std::optional<JobSnapshot> active;
  std::vector<NewestChangeId> newest;  ///< over all repositories, or the one asked for
};

/// By VMware key (client 1.0.1), by index (client with telemetry), or neither.
struct DiskAsked {
  std::optional<uint32_t> key;
  std::optional<uint32_t> index;
};

struct ChangeIdDecision {
  std::string change_id;   ///< "": the client copies in full
  std::string backup_id;   ///< the job that recorded it
  bool ambiguous = false;  ///< row 10
  /// The disk of an active incremental job whose id this is, for the record.
  std::optional<uint32_t> handed_out_for;
  std::string handed_out_by;  ///< that job
};

/// `vms` are all VMs that the name or path fits; none when it is unknown.
ChangeIdDecision decide_change_id(const std::vector<VmSnapshot>& vms, const DiskAsked& asked);

/// Which disk a `complete` without disk_id means: the unsealed connected disk
/// that connected last; else the one that recorded this change id; else the unsealed one that was
/// connected last; else the unsealed one with the lowest key. Nothing when all are sealed with
/// other ids.
std::optional<uint32_t> select_completed_disk(const std::vector<DiskSnapshot>& disks,
                                              const std::string& change_id);

}  // namespace engine
