// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// The registered VMs as the API shows them. Control thread.
namespace engine {

io::Task<PutVmResult> put_vm(Core& core, PutVmContext request);
/// By name, with the interval that holds for each.
std::vector<ListedVm> list_vms(Core& core);
VmView vm_view(Core& core, const std::string& vm_name);
VmView vm_view_by_context(Core& core, const std::string& context_id);
std::vector<VmDisk> disks_of_vm(Catalogue& catalogue, const std::string& context_id_or_name);
io::Task<std::string> delete_vm(Core& core, std::string vm_name);

}  // namespace engine
