// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/repository_watch.h"
#include "engine/jobs/space_watch.h"
#include "engine/jobs/start_job.h"
#include "engine/repository/storage.h"
#include "engine/values/refusal.h"
#include "engine/values/warnings.h"
#include "qcow/chain/chain.h"
#include "qcow/format/uuid.h"

namespace engine {
namespace {

static_assert(kChainImagesMax == qcow::Chain::kLayersMax);

std::vector<VmDisk> disks_to_back_up(const Vm& vm) {
  std::vector<VmDisk> disks;
  for (const VmDisk& disk : vm.disks) {
    if (!disk.removed) disks.push_back(disk);
  }
  return disks;
}

Credentials resolve_credentials(const Secrets& secrets, const Vm& vm) {
  if (vm.credentials.kind == CredentialsRef::Kind::none) throw refusals::credentials_missing();
  const auto found = secrets.find(vm);
  if (!found) {
    throw refusals::credentials_unresolved(
        vm.credentials.kind == CredentialsRef::Kind::reference
            ? fmt::format("no secret is named '{}'", vm.credentials.ref)
            : "the stored credentials of this VM are missing");
  }
  return *found;
}

/// Waits for the removal of a job that has ended already: its directories may not be shared with
/// the next one. Throws when the VM has a running job.
io::Task<void> require_no_running_job(Catalogue& catalogue, const ActiveJobs& jobs, const Vm& vm) {
  if (const auto job = jobs.of_vm(vm.context_id)) {
    if (is_active(job->row.state)) throw refusals::backup_already_running(job->row.id);
    const io::Grant removal_is_over = co_await job->steps.lock();
  }
  if (const auto job = catalogue.jobs.active_job(vm.context_id)) {
    throw refusals::backup_already_running(job->id);
  }
}

io::Task<void> require_space(Core& core, const StartPlan& plan, std::string resumed) {
  std::optional<io::SpaceStatus> space;
  try {
    space = co_await core.files().space(plan.directory);
  } catch (const std::exception& failure) {
    throw refusals::disk_not_prepared("", failure.what());
  }
  const uint64_t reserve = reserve_of(space->total_bytes, core.options.space_reserve_bytes);
  uint64_t free = space->available_bytes;
  limit_allocation_ahead(*core.disk_share(plan.directory), core.jobs,
                         free - std::min(free, reserve));
  if (free < reserve) free += co_await held_ahead(core.files(), core.jobs, plan.repository.id);
  bool made_room = false;
  if (free < reserve) {
    made_room = co_await drop_kept_of(core, plan.repository.id, "the repository is full", resumed);
  }
  if (made_room) {
    space = co_await core.files().space(plan.directory);
    free = space->available_bytes;
  }
  if (free < reserve) throw refusals::no_space(free, reserve, reserve - free);
}

/// What the job that is resumed was asked for; what the changes are against is asked each time.
StartBackup as_asked(const Job& interrupted, std::string base) {
  StartBackup request;
  request.base = std::move(base);
  request.vm_name = interrupted.vm_name;
  request.backup_type = interrupted.type;
  request.repository_id = interrupted.repository_id;
  request.client = interrupted.client;
  request.into_chain = interrupted.into_chain();
  request.policy_id = interrupted.policy_id;
  request.tags = interrupted.tags;
  request.keep_partial = true;
  request.resume = interrupted.id;
  return request;
}

/// The last planned disk goes on with its image, if that would be made the same today.
void take_over(JobDisk& planned, const Job& interrupted) {
  const auto found = std::ranges::find(interrupted.disks, planned.index, &JobDisk::index);
  const auto refuse = [&](const char* why) {
    throw refusals::not_resumable(
        interrupted.id, fmt::format("has begun otherwise: disk {} {}", planned.index, why));
  };
  if (found == interrupted.disks.end()) refuse("is new");
  if (found->key != planned.key || found->capacity_bytes != planned.capacity_bytes) {
    refuse("has changed since");
  }
  if (found->type != planned.type || found->parent_image_id != planned.parent_image_id) {
    refuse("would stand on another point now");
  }
  planned.image_id = found->image_id;
  planned.image_uuid = found->image_uuid;
  planned.image_path = found->image_path;
}

/// Standalone in a job that goes into the chain: a disk without a point, and one that shrank.
void plan_disk(StartPlan& plan, const StartBackup& request, const VmDisk& from,
               std::optional<Point> parent) {
  JobDisk disk;
  disk.index = from.index;
  disk.key = from.key;
  disk.capacity_bytes = from.capacity_bytes;
  disk.unit_number = from.unit_number;
  disk.vmdk_path = from.vmdk_path;
  disk.datastore = from.datastore;
  const bool incremental = request.backup_type == BackupType::incremental;
  if (!incremental && !request.into_chain) {
    parent.reset();
  } else if (auto warning = standalone_warning(from.index, from.capacity_bytes, parent)) {
    plan.job.warnings.push_back(std::move(*warning));
    parent.reset();
  }
  if (parent) {
    const uint32_t images = parent->place.position + 2;
    if (images > kChainImagesMax) throw refusals::chain_too_long(from.index, kChainImagesMax);
    if (auto warning = long_chain_warning(from.index, images)) {
      plan.job.warnings.push_back(std::move(*warning));
    }
    disk.type = BackupType::incremental;
    disk.parent_image_id = parent->image_id;
    disk.parent_job_id = parent->job_id;
    if (incremental && change_id_is_usable(parent->change_id)) {
      disk.parent_change_id = parent->change_id;
    }
  }
  plan.job.disks.push_back(std::move(disk));
  plan.parents.push_back(std::move(parent));
}

/// A writer that names the base of its changes means the parent of every disk; a disk that has no
/// point yet is not in that base. Changes against anything else would make a point that is wrong.
void require_base(const StartBackup& request, const JobDisk& disk,
                  const std::optional<Point>& newest) {
  const std::string& base = request.base;
  if (base.empty()) return;
  if (request.backup_type == BackupType::full && !request.into_chain) {
    throw refusals::base_is_not_the_parent(base, disk.index, "it gets a full image by itself");
  }
  if (!newest) return;
  if (disk.type == BackupType::full) {
    throw refusals::base_is_not_the_parent(base, disk.index,
                                           "it shrank and gets a full image without a parent");
  }
  if (base == newest->job_id || base == newest->change_id) return;
  throw refusals::base_is_not_the_parent(
      base, disk.index,
      fmt::format("the parent is backup '{}' with change id '{}'", newest->job_id,
                  newest->change_id));
}

}  // namespace

io::Task<StartPlan> plan_start(Core& core, StartBackup request) {
  std::optional<Job> interrupted;
  if (!request.resume.empty()) {
    interrupted = co_await require_resumable(core, request.resume);
    request = as_asked(*interrupted, request.base);
  }
  StartPlan plan;
  plan.vm = core.catalogue->vms.resolve(request.vm_name);
  const std::vector<VmDisk> disks = disks_to_back_up(plan.vm);
  if (disks.empty()) throw refusals::no_disks();
  auto repository = core.catalogue->repositories.find(request.repository_id);
  if (!repository) throw refusals::repository_not_found(request.repository_id);
  plan.repository = std::move(*repository);
  plan.directory = plan.repository.directory;
  if (!plan.repository.enabled) throw refusals::repository_disabled(request.repository_id);
  co_await require_available(core, plan.repository);
  co_await require_no_running_job(*core.catalogue, core.jobs, plan.vm);
  if (request.backup_type == BackupType::incremental &&
      !core.catalogue->points.any(plan.vm.context_id, plan.repository.id)) {
    throw refusals::no_previous_backup();
  }
  if (calls_node(core.options, request.client)) {
    if (plan.vm.vcenter_host.empty()) throw refusals::vm_has_no_vcenter(plan.vm.vm_name);
    plan.credentials = resolve_credentials(*core.secrets, plan.vm);
  }
  if (core.shutting_down) throw refusals::shutting_down();
  co_await require_space(core, plan, request.resume);
  if (core.options.targets == TargetsMode::ports) core.ports.require(disks.size());
  // While this waited, the repository may have gone: what is left in it when it comes back is
  // removed, and this job's images would be taken for that.
  const std::string cause = core.availability.cause(plan.repository.id);
  if (!cause.empty()) throw refusals::repository_unavailable(plan.repository.id, cause);

  plan.job.context_id = plan.vm.context_id;
  plan.job.vm_name = plan.vm.vm_name;
  plan.job.repository_id = plan.repository.id;
  plan.job.policy_id = request.policy_id;
  plan.job.tags = request.tags;
  plan.job.vm_path = plan.vm.vm_path;
  plan.job.vcenter_host = plan.vm.vcenter_host;
  plan.job.vmware_vm_id = plan.vm.vmware_vm_id;
  plan.job.type = request.backup_type;
  plan.job.client = request.client;
  plan.job.keep_partial = request.keep_partial;
  plan.job.resumes = request.resume;
  plan.job.created_at = core.now();
  for (const VmDisk& disk : disks) {
    const std::optional<Point> newest =
        core.catalogue->points.newest(plan.vm.context_id, plan.repository.id, disk.index);
    plan_disk(plan, request, disk, newest);
    require_base(request, plan.job.disks.back(), newest);
    JobDisk& planned = plan.job.disks.back();
    planned.image_uuid = qcow::uuid_text(qcow::make_uuid(core.parts.home));
    if (interrupted) take_over(planned, *interrupted);
    plan.image_uuids.push_back(qcow::uuid_from_text(planned.image_uuid));
  }
  if (interrupted && interrupted->disks.size() != plan.job.disks.size()) {
    throw refusals::not_resumable(interrupted->id, "has begun with other disks");
  }
  co_return plan;
}

}  // namespace engine
