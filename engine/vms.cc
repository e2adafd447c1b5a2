// SPDX-License-Identifier: Apache-2.0
#include "engine/vms.h"

#include <utility>

#include "engine/jobs/end_job.h"
#include "engine/jobs/job_view.h"
#include "engine/silence.h"
#include "engine/values/log_fields.h"
#include "engine/values/refusal.h"
#include "io/counted.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr uint64_t kHistoryLength = 10;

/// What the rows do not say.
Vm judged(Core& core, Vm vm) {
  vm = with_silence(core, std::move(vm));
  vm.secret_missing = core.secrets->is_missing(vm);
  return vm;
}

VmView view_of(Core& core, Vm vm) {
  VmView view;
  if (!vm.current_job_id.empty()) {
    if (auto job = core.catalogue->jobs.find(vm.current_job_id)) {
      view.current_job = job_view(core.jobs, core.now(), std::move(*job));
    }
  }
  BackupFilter filter;
  filter.vm_context_id = vm.context_id;
  filter.limit = kHistoryLength;
  JobPage page = core.catalogue->jobs.list(filter);
  for (Job& job : page.jobs)
    view.job_history.push_back(job_view(core.jobs, core.now(), std::move(job)));
  view.vm = judged(core, std::move(vm));
  return view;
}

/// Before the row, which says which kind of credentials the VM has. A crash in between leaves an
/// unused secret at most.
io::Task<void> keep_secret(Secrets& secrets, std::string context_id, CredentialsChange change) {
  if (change.kind == CredentialsChange::Kind::inline_secret) {
    Credentials credentials{.username = change.username, .password = change.password};
    co_await secrets.store(std::move(context_id), std::move(credentials));
  } else if (change.kind != CredentialsChange::Kind::keep) {
    co_await secrets.remove(std::move(context_id));
  }
}

}  // namespace

io::Task<PutVmResult> put_vm(Core& core, PutVmContext request) {
  core.catalogue->vms.check(request);
  const auto known = core.catalogue->vms.find(request.vm_name);
  // A new VM has no id yet, and removing a secret comes after the row that needs none.
  if (known && request.credentials.kind == CredentialsChange::Kind::inline_secret) {
    co_await keep_secret(*core.secrets, known->context_id, request.credentials);
  }
  PutVmResult result;
  result.created = core.catalogue->vms.put(request, core.now());
  auto vm = core.catalogue->vms.find(request.vm_name);
  if (!vm) throw refusals::vm_context_not_found(request.vm_name);
  if (!known || request.credentials.kind != CredentialsChange::Kind::inline_secret) {
    co_await keep_secret(*core.secrets, vm->context_id, request.credentials);
  }
  io::log(io::LogLevel::info, {.vm = vm->vm_name}, "VM {} {}: {}{}{}", vm->vm_name,
          result.created ? "registered" : "registered anew", vm->vm_path,
          vm->vm_path.empty() ? "" : ", ", io::counted(request.disks.size(), "disk"));
  core.intervals_changed = true;
  result.vm = view_of(core, std::move(*vm));
  co_return result;
}

std::vector<ListedVm> list_vms(Core& core) {
  std::vector<ListedVm> listed = core.catalogue->vms.listed();
  for (ListedVm& each : listed) each.vm = judged(core, std::move(each.vm));
  return listed;
}

VmView vm_view(Core& core, const std::string& vm_name) {
  auto vm = core.catalogue->vms.find(vm_name);
  if (!vm) throw refusals::vm_context_not_found(vm_name);
  return view_of(core, std::move(*vm));
}

VmView vm_view_by_context(Core& core, const std::string& context_id) {
  auto vm = core.catalogue->vms.find_context(context_id);
  if (!vm) throw refusals::vm_context_id_not_found(context_id);
  return view_of(core, std::move(*vm));
}

std::vector<VmDisk> disks_of_vm(Catalogue& catalogue, const std::string& context_id_or_name) {
  auto vm = catalogue.vms.find_context(context_id_or_name);
  if (!vm) vm = catalogue.vms.find(context_id_or_name);
  if (!vm) throw refusals::vm_context_not_found(context_id_or_name);
  std::vector<VmDisk> disks;
  for (VmDisk& disk : vm->disks) {
    if (!disk.removed) disks.push_back(std::move(disk));
  }
  return disks;
}

io::Task<std::string> delete_vm(Core& core, std::string vm_name) {
  std::vector<Job> kept = core.catalogue->jobs.kept_jobs();
  const std::string context_id = core.catalogue->vms.erase(vm_name);
  co_await core.secrets->remove(context_id);
  std::erase_if(kept, [&](const Job& job) { return job.context_id != context_id; });
  for (const Job& job : kept) co_await discard_images(core, job);
  io::log(io::LogLevel::info, {.vm = vm_name}, "VM {} is no longer registered", vm_name);
  co_return context_id;
}

}  // namespace engine
