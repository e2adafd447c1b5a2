// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/values/requests.h"

/// The form of a VM's registration, whatever is known of the VM. Pure. Spec: docs/http-api.md, "VM
/// contexts".
namespace engine {

/// Throws refusals::vm_context_invalid, naming the member that is wrong.
void check_registration(const PutVmContext& request);

}  // namespace engine
