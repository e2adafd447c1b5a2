// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/values/types.h"

/// The two files that describe a VM's directory to people and to a rebuild: chain.json of each
/// disk, and vm.json.
///
/// Invariant: equal values give equal bytes. Spec: docs/jobs.md, "Files of a repository". Pure.
namespace engine {

/// chain.json. `generations` are oldest first and not empty; the newest one's members stand at the
/// top, the others' in older_generations. Ids in it are image ids.
std::string encode_chain_file(const std::vector<Chain>& generations);

/// vm.json: name, path, vCenter, disks; no credentials.
std::string encode_vm_file(const Vm& vm);
/// Throws FileTextError.
Vm decode_vm_file(std::string_view text);

}  // namespace engine
