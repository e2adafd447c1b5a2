// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/repository/chain_file.h"
#include "engine/repository/proof_file.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"

namespace engine {
namespace {

/// An image whose sidecar could be read.
struct Described {
  const FoundImage* image;
  Sidecar sidecar;
};

/// The images of one job, by image id.
using Group = std::map<std::string, Described>;

std::vector<Described> describe(const std::vector<FoundImage>& images,
                                std::vector<std::string>& problems) {
  std::vector<Described> described;
  for (const FoundImage& image : images) {
    if (image.sidecar.empty()) {
      problems.push_back(fmt::format("{}: has no sidecar", image.image_path));
      continue;
    }
    try {
      described.push_back({&image, decode_sidecar(image.sidecar)});
    } catch (const std::exception& cause) {
      problems.push_back(fmt::format("{}: {}", image.image_path, cause.what()));
    }
  }
  return described;
}

/// Why a job cannot be accepted, whatever the others; "" when it can.
std::string defect(const Group& group) {
  const Sidecar& first = group.begin()->second.sidecar;
  for (const std::string& id : first.job_images) {
    if (!group.contains(id)) return fmt::format("image {} is missing", id);
  }
  if (group.size() != first.job_images.size()) return "its sidecars name different images";
  for (const auto& [id, described] : group) {
    const Sidecar& sidecar = described.sidecar;
    if (sidecar.job_images != first.job_images || sidecar.job.context_id != first.job.context_id) {
      return "its sidecars contradict each other";
    }
    const std::string place =
        disk_directory("", sidecar.job.context_id, sidecar.disk.index) + '/' + image_file_name(id);
    if (!described.image->image_path.ends_with(place)) {
      return fmt::format("image {} does not lie in {}", id, place);
    }
    if (described.image->file_bytes != sidecar.disk.file_bytes) {
      return fmt::format("image {} has {} bytes, its sidecar says {}", id,
                         described.image->file_bytes, sidecar.disk.file_bytes);
    }
    if ((sidecar.disk.type == BackupType::full) != (sidecar.disk.place.position == 0) ||
        (sidecar.disk.type == BackupType::full) != sidecar.disk.parent_image_id.empty()) {
      return fmt::format("image {} has a position that does not fit its type", id);
    }
  }
  return {};
}

/// What has been accepted so far.
class Accepted {
 public:
  /// Why the job does not fit what is there; "" when it does.
  std::string conflict(const Group& group) const {
    for (const auto& [id, described] : group) {
      const Sidecar& sidecar = described.sidecar;
      if (places_.contains(place(sidecar))) {
        return fmt::format("image {} has a place that another one has", id);
      }
      if (sidecar.disk.place.position == 0) continue;
      const auto parent = sidecars_.find(sidecar.disk.parent_image_id);
      if (parent == sidecars_.end()) {
        return fmt::format("the parent of image {}, {}, is not there", id,
                           sidecar.disk.parent_image_id);
      }
      const Sidecar& below = *parent->second;
      if (below.job.context_id != sidecar.job.context_id ||
          below.disk.index != sidecar.disk.index ||
          below.disk.place.generation != sidecar.disk.place.generation ||
          below.disk.place.position + 1 != sidecar.disk.place.position) {
        return fmt::format("the parent of image {} has another place", id);
      }
    }
    return {};
  }

  void add(const Group& group) {
    for (const auto& [id, described] : group) {
      sidecars_[id] = &described.sidecar;
      places_.insert(place(described.sidecar));
    }
  }

  const Sidecar* find(const std::string& image_id) const {
    const auto found = sidecars_.find(image_id);
    return found == sidecars_.end() ? nullptr : found->second;
  }

 private:
  using Place = std::tuple<std::string, uint32_t, ChainPlace>;
  static Place place(const Sidecar& sidecar) {
    return {sidecar.job.context_id, sidecar.disk.index, sidecar.disk.place};
  }

  std::map<std::string, const Sidecar*> sidecars_;
  std::set<Place> places_;
};

JobDisk disk_of(const Described& described, const Sidecar* parent) {
  const Job& job = described.sidecar.job;
  JobDisk disk = described.sidecar.disk;
  disk.job_id = job.id;
  disk.state = DiskState::completed;
  disk.image_path = described.image->image_path;
  disk.allocated_bytes = described.image->allocated_bytes;
  if (parent != nullptr) disk.parent_job_id = parent->job.id;
  // "backup-x-1" gave "x-1-disk0": names.h.
  disk.export_name = fmt::format("{}-disk{}", job.id.substr(kJobPrefix.size()), disk.index);
  disk.created_at = job.created_at;
  disk.completed_at = job.completed_at;
  return disk;
}

Job job_of(const std::string& repository_id, const Group& group, const Accepted& accepted) {
  Job job = group.begin()->second.sidecar.job;
  job.repository_id = repository_id;
  job.state = JobState::completed;
  job.started_at = job.created_at;
  job.decided_at = job.completed_at;
  for (const auto& [id, described] : group) {
    const Sidecar& sidecar = described.sidecar;
    const bool says_type = sidecar.format >= 3;
    if (!says_type && sidecar.disk.type == BackupType::incremental) {
      job.type = BackupType::incremental;
    }
    job.disks.push_back(disk_of(described, accepted.find(sidecar.disk.parent_image_id)));
    for (const Warning& warning : sidecar.job.warnings) {
      if (std::find(job.warnings.begin(), job.warnings.end(), warning) == job.warnings.end()) {
        job.warnings.push_back(warning);
      }
    }
  }
  std::sort(job.disks.begin(), job.disks.end(),
            [](const JobDisk& a, const JobDisk& b) { return a.index < b.index; });
  return job;
}

/// The VM as its jobs saw it; later jobs override earlier ones.
Vm vm_of(const std::string& context_id, const std::vector<Job>& jobs) {
  Vm vm;
  vm.context_id = context_id;
  vm.safe_name = safe_name_of_context(context_id);
  std::map<uint32_t, VmDisk> disks;
  for (const Job& job : jobs) {
    if (job.context_id != context_id) continue;
    if (vm.vm_name.empty()) vm.created_at = job.created_at;
    vm.vm_name = job.vm_name;
    vm.vm_path = job.vm_path;
    vm.vcenter_host = job.vcenter_host;
    vm.vmware_vm_id = job.vmware_vm_id;
    vm.updated_at = job.created_at;
    for (auto& [index, disk] : disks) disk.removed = true;
    for (const JobDisk& job_disk : job.disks) {
      VmDisk& disk = disks[job_disk.index];
      disk.key = job_disk.key;
      disk.index = job_disk.index;
      disk.capacity_bytes = job_disk.capacity_bytes;
      disk.vmdk_path = job_disk.vmdk_path;
      disk.datastore = job_disk.datastore;
      disk.removed = false;
    }
  }
  for (const auto& [index, disk] : disks) vm.disks.push_back(disk);
  return vm;
}

/// By job, in the order of the chains, so that parents mostly come before their children; times
/// do not say that, because clocks are set back.
std::vector<Group> groups_of(std::vector<Described> described) {
  std::map<std::string, Group> by_job;
  for (Described& one : described) {
    Group& group = by_job[one.sidecar.job.id];
    group.emplace(one.sidecar.disk.image_id, std::move(one));
  }
  std::vector<Group> groups;
  for (auto& [id, group] : by_job) groups.push_back(std::move(group));
  const auto key = [](const Group& group) {
    const Sidecar& sidecar = group.begin()->second.sidecar;
    return std::tuple(sidecar.job.context_id, sidecar.disk.place, sidecar.job.completed_at,
                      sidecar.job.created_at);
  };
  std::stable_sort(groups.begin(), groups.end(),
                   [&](const Group& a, const Group& b) { return key(a) < key(b); });
  return groups;
}

/// A job's disks may be at different places of their chains, so no order of the jobs suits all:
/// those whose parents are missing wait for the next round, until a round accepts nothing.
void accept_jobs(const std::string& repository_id, const std::vector<Group>& groups,
                 RebuildPlan& plan) {
  Accepted accepted;
  std::vector<const Group*> waiting;
  for (const Group& group : groups) waiting.push_back(&group);
  std::map<const Group*, std::string> reasons;
  for (size_t before = waiting.size() + 1; waiting.size() < before;) {
    before = waiting.size();
    std::vector<const Group*> refused;
    for (const Group* const group : waiting) {
      std::string reason = defect(*group);
      if (reason.empty()) reason = accepted.conflict(*group);
      if (!reason.empty()) {
        reasons[group] = std::move(reason);
        refused.push_back(group);
        continue;
      }
      accepted.add(*group);
      plan.jobs.push_back(job_of(repository_id, *group, accepted));
    }
    waiting = std::move(refused);
  }
  for (const Group* const group : waiting) {
    plan.problems.push_back(
        fmt::format("job {}: {}", group->begin()->second.sidecar.job.id, reasons[group]));
  }
}

/// Of the jobs that are accepted. One that cannot be believed leaves its image unproven.
void accept_proofs(const std::vector<FoundImage>& images, RebuildPlan& plan) {
  std::map<std::string, std::string> image_ids;  // by path
  for (const Job& job : plan.jobs) {
    for (const JobDisk& disk : job.disks) image_ids[disk.image_path] = disk.image_id;
  }
  for (const FoundImage& image : images) {
    const auto known = image_ids.find(image.image_path);
    if (image.proof.empty() || known == image_ids.end()) continue;
    try {
      plan.proofs.push_back(decode_proof_file(image.proof, known->second));
    } catch (const std::exception& cause) {
      plan.problems.push_back(fmt::format("the last proof, {}: {}; the image counts as unproven",
                                          proof_path(image.image_path), cause.what()));
    }
  }
}

}  // namespace

RebuildPlan plan_rebuild(const std::string& repository_id, const std::vector<std::string>& vm_files,
                         const std::vector<FoundImage>& images) {
  RebuildPlan plan;
  const std::vector<Group> groups = groups_of(describe(images, plan.problems));
  accept_jobs(repository_id, groups, plan);
  accept_proofs(images, plan);
  std::set<std::string> context_ids;
  for (const std::string& text : vm_files) {
    try {
      Vm vm = decode_vm_file(text);
      if (context_ids.insert(vm.context_id).second) plan.vms.push_back(std::move(vm));
    } catch (const std::exception& cause) {
      plan.problems.emplace_back(cause.what());
    }
  }
  for (const Job& job : plan.jobs) {
    if (context_ids.insert(job.context_id).second) {
      plan.vms.push_back(vm_of(job.context_id, plan.jobs));
    }
  }
  return plan;
}

}  // namespace engine
