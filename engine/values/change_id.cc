// SPDX-License-Identifier: Apache-2.0
#include "engine/values/change_id.h"

#include <algorithm>
#include <functional>

namespace engine {
namespace {

using Disks = std::vector<DiskSnapshot>;

const DiskSnapshot* find_if(const Disks& disks,
                            const std::function<bool(const DiskSnapshot&)>& fits) {
  const auto found = std::find_if(disks.begin(), disks.end(), fits);
  return found == disks.end() ? nullptr : &*found;
}

const DiskSnapshot* by_index(const Disks& disks, uint32_t index) {
  return find_if(disks, [=](const DiskSnapshot& disk) { return disk.index == index; });
}

/// The fitting disk that connected last.
const DiskSnapshot* last_connected(const Disks& disks,
                                   const std::function<bool(const DiskSnapshot&)>& fits) {
  const DiskSnapshot* last = nullptr;
  for (const DiskSnapshot& disk : disks) {
    if (!fits(disk)) continue;
    if (last == nullptr || disk.connect_sequence > last->connect_sequence) last = &disk;
  }
  return last;
}

const DiskSnapshot* lowest_unsealed_key(const Disks& disks) {
  const DiskSnapshot* lowest = nullptr;
  for (const DiskSnapshot& disk : disks) {
    if (disk.sealed) continue;
    if (lowest == nullptr || disk.key < lowest->key) lowest = &disk;
  }
  return lowest;
}

bool is_open(const DiskSnapshot& disk) { return !disk.sealed && disk.connected; }

/// Rows 2 to 6: the disk that the client means, nullptr when it is not in the job.
const DiskSnapshot* disk_meant(const Disks& disks, const DiskAsked& asked) {
  if (asked.key) {  // 2
    return find_if(disks, [&](const DiskSnapshot& disk) { return disk.key == *asked.key; });
  }
  const uint32_t index = asked.index.value_or(0);
  if (index > 0) return by_index(disks, index);                     // 3
  if (const DiskSnapshot* last = last_connected(disks, is_open)) {  // 4
    const DiskSnapshot* disk0 = by_index(disks, 0);
    return disk0 != nullptr && is_open(*disk0) ? disk0 : last;
  }
  if (const DiskSnapshot* next = lowest_unsealed_key(disks)) return next;  // 5
  return by_index(disks, 0);                                               // 6
}

ChangeIdDecision decide_in_job(const JobSnapshot& job, const DiskAsked& asked) {
  if (job.type == BackupType::full) return {};  // 1
  const DiskSnapshot* disk = disk_meant(job.disks, asked);
  if (disk == nullptr || !change_id_is_usable(disk->parent_change_id)) return {};  // 7
  ChangeIdDecision decision;
  decision.change_id = disk->parent_change_id;
  decision.backup_id = disk->parent_job_id;
  decision.handed_out_for = disk->index;
  decision.handed_out_by = job.job_id;
  return decision;
}

/// Rows 8 and 9.
ChangeIdDecision decide_idle(const VmSnapshot& vm, const DiskAsked& asked) {
  const auto fits = [&](const NewestChangeId& disk) {
    return asked.key ? disk.key == *asked.key : disk.index == asked.index.value_or(0);
  };
  const auto found = std::find_if(vm.newest.begin(), vm.newest.end(), fits);
  if (found == vm.newest.end() || !change_id_is_usable(found->change_id)) return {};
  ChangeIdDecision decision;
  decision.change_id = found->change_id;
  decision.backup_id = found->job_id;
  return decision;
}

ChangeIdDecision decide_for(const VmSnapshot& vm, const DiskAsked& asked) {
  return vm.active ? decide_in_job(*vm.active, asked) : decide_idle(vm, asked);
}

}  // namespace

ChangeIdDecision decide_change_id(const std::vector<VmSnapshot>& vms, const DiskAsked& asked) {
  if (vms.empty()) return {};
  if (vms.size() == 1) return decide_for(vms.front(), asked);
  const auto is_busy = [](const VmSnapshot& vm) { return vm.active.has_value(); };
  if (std::count_if(vms.begin(), vms.end(), is_busy) != 1) {  // 10
    ChangeIdDecision decision;
    decision.ambiguous = true;
    return decision;
  }
  return decide_for(*std::find_if(vms.begin(), vms.end(), is_busy), asked);
}

std::optional<uint32_t> select_completed_disk(const Disks& disks, const std::string& change_id) {
  const DiskSnapshot* disk = last_connected(disks, is_open);
  if (disk == nullptr) {
    disk = find_if(disks, [&](const DiskSnapshot& candidate) {
      return !candidate.change_id.empty() && candidate.change_id == change_id;
    });
  }
  if (disk == nullptr) {
    disk = last_connected(disks, [](const DiskSnapshot& candidate) {
      return !candidate.sealed && candidate.connect_sequence > 0;
    });
  }
  if (disk == nullptr) disk = lowest_unsealed_key(disks);
  if (disk == nullptr) return std::nullopt;
  return disk->index;
}

}  // namespace engine
