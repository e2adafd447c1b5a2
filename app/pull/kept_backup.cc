// SPDX-License-Identifier: Apache-2.0
#include "app/pull/kept_backup.h"

#include <fmt/format.h>

#include <utility>

#include "io/counted.h"

namespace app {

KeptBackup::KeptBackup(Hub& hub, std::string backup_id) : id_(std::move(backup_id)) {
  const nlohmann::json backup = hub.backup(id_);
  vm_name_ = backup.at("vm_name");
  context_id_ = backup.at("vm_context_id");
  is_full_ = backup.at("backup_type") == "full";
  const nlohmann::json disks = hub.disks_of(id_);
  for (const nlohmann::json& disk : disks) {
    disk_bytes_[disk.at("disk_index")] = disk.at("capacity_bytes");
  }
}

void KeptBackup::require_of(Hub& hub, const std::string& vm_name) const {
  if (hub.context_id_of(vm_name) == context_id_) return;
  throw PullRefused(
      fmt::format("--resume {}: that backup is one of VM {}, and {} is to be pulled; what has "
                  "arrived of one VM is nothing to go on with for another",
                  id_, vm_name_, vm_name));
}

void KeptBackup::require_full() const {
  if (is_full_) return;
  throw PullRefused(fmt::format(
      "--resume {}: that backup is an incremental, and --changed counts from its parent "
      "only if --since says so: give --since as the pull that failed had it",
      id_));
}

void KeptBackup::require_size(uint32_t index, uint64_t bytes) const {
  const auto found = disk_bytes_.find(index);
  if (found == disk_bytes_.end() || found->second == bytes) return;  // the server says the former
  throw PullRefused(
      fmt::format("--resume {}: disk {} had {} when that backup began, and its source has {} now, "
                  "so it is not what it was; pull without --resume",
                  id_, index, io::counted(found->second, "byte"), io::counted(bytes, "byte")));
}

}  // namespace app
