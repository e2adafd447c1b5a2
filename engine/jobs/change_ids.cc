// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/change_ids.h"

#include "engine/jobs/complete_job.h"
#include "engine/values/change_id.h"
#include "engine/values/log_fields.h"
#include "io/log.h"

namespace engine {
namespace {

VmSnapshot snapshot_of(Catalogue& catalogue, const ActiveJobs& jobs, const Vm& vm,
                       const std::string& repository_id) {
  VmSnapshot snapshot;
  if (const auto job = jobs.of_vm(vm.context_id); job && is_active(job->row.state)) {
    job->change_id_asked = true;
    snapshot.active =
        JobSnapshot{.job_id = job->row.id, .type = job->row.type, .disks = disk_snapshots(*job)};
  }
  snapshot.newest = catalogue.points.change_ids(vm.context_id, repository_id);
  return snapshot;
}

/// The record of an answer that could not be written is a loss for the operator only.
void record(Catalogue& catalogue, const ActiveJobs& jobs, const ChangeIdDecision& decision) {
  const auto job = jobs.find(decision.handed_out_by);
  JobDisk* const disk = job ? job->disk(*decision.handed_out_for) : nullptr;
  if (!disk || disk->handed_out_change_id == decision.change_id) return;
  try {
    catalogue.jobs.set_handed_out(job->row.id, disk->index, decision.change_id);
    disk->handed_out_change_id = decision.change_id;
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, about(job->row, disk->index, failure.what()), "job {}: {}",
            job->row.id, failure.what());
  }
}

ChangeIdAnswer answer(Catalogue& catalogue, const ActiveJobs& jobs, const std::vector<Vm>& vms,
                      const DiskAsked& asked, const std::string& repository_id) {
  std::vector<VmSnapshot> snapshots;
  for (const Vm& vm : vms) snapshots.push_back(snapshot_of(catalogue, jobs, vm, repository_id));
  const ChangeIdDecision decision = decide_change_id(snapshots, asked);
  if (decision.handed_out_for) record(catalogue, jobs, decision);
  return {.change_id = decision.change_id,
          .job_id = decision.backup_id,
          .ambiguous = decision.ambiguous};
}

}  // namespace

ChangeIdAnswer answer_change_id(Catalogue& catalogue, const ActiveJobs& jobs,
                                const ChangeIdQuery& query) {
  return answer(catalogue, jobs, catalogue.vms.named(query.vm_name), {.index = query.disk_id},
                query.repository_id);
}

ChangeIdAnswer answer_change_id(Catalogue& catalogue, const ActiveJobs& jobs,
                                const ChangeIdByPathQuery& query) {
  DiskAsked asked;
  if (!query.disk_id.empty()) {
    asked.key = vmware_disk_key(query.disk_id);
    if (!asked.key) return {};
  }
  return answer(catalogue, jobs, catalogue.vms.at_path(query.vm_path), asked, "");
}

}  // namespace engine
