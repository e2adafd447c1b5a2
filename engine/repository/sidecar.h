#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/values/types.h"

/// The sidecar of a published image, "<image>.qcow2.json".
///
/// Invariant: equal values give equal bytes, because publish is repeated after a crash and the
/// image's header holds the SHA-256 of these bytes (VR5, PU5). Written once, never changed. Spec:
/// docs/jobs.md, "Files of a repository". Pure.
namespace engine {

/// A file of a repository does not say what varve writes there.
class FileTextError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Sidecar {
  std::string image_id, context_id, vm_name;
  uint32_t disk_index = 0, disk_key = 0;
  BackupType type = BackupType::full;
  std::string parent_image_id, backing_file;  ///< "" for a full
  std::string change_id, parent_change_id;
  uint64_t file_bytes = 0, allocated_bytes = 0, capacity_bytes = 0;
  Time created_at, completed_at;  ///< of the job
  std::string vmware_vm_id, disk_path, datastore, vm_path, vcenter_host;
  std::string job_id, repository_id;
  std::vector<std::string> job_images;  ///< image ids of the whole job, ascending index
  uint32_t generation = 0, position = 0;
  Tags tags;
  std::vector<Warning> warnings;  ///< of this disk

  bool operator==(const Sidecar&) const = default;
};

/// What the decision fixes for one sealed disk of a job, its place in the chain given.
Sidecar sidecar_of(const Job& job, const JobDisk& disk, uint32_t generation, uint32_t position,
                   Time completed_at);

std::string encode_sidecar(const Sidecar& sidecar);
/// Throws FileTextError; also for a sidecar of the old hub's, which has no `varve` member.
Sidecar decode_sidecar(std::string_view text);

}  // namespace engine
