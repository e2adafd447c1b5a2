// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "engine/jobs/core.h"

/// The files of a repository that describe its points: chain.json, vm.json, the links that lead to
/// the newest point.
///
/// Each is made anew from the catalogue, so none of them is worth a failure: what cannot be written
/// is logged and written later (unfinished.h). Nothing is written when it is there already. The
/// caller has the context's turn. Control thread. Spec: docs/jobs.md, "Files of a repository".
namespace engine {

/// chain.json and the links: "<safe>-disk-<key>" in the repository leads to the disk's directory,
/// "latest.qcow2" there to the newest point. They are removed when the disk has no point left.
io::Task<void> refresh_disk_files(Core& core, std::string context_id, std::string repository_id,
                                  uint32_t disk_index, uint32_t disk_key);

/// vm.json in "<repository>/<context>".
io::Task<void> refresh_vm_file(Core& core, std::string context_id, std::string repository_id);

/// All of them, of every disk that the VM has. Takes the turn itself.
io::Task<void> repair_context_files(Core& core, std::string context_id, std::string repository_id);

}  // namespace engine
