#pragma once

#include <cstdint>
#include <string>

#include "engine/core.h"

/// The files of a repository that describe its points: chain.json, vm.json, the link to the newest
/// point. Each is made anew from the catalogue. Control thread. Spec: contract.md 8.
namespace engine {

/// Also removes it when the disk has no point left.
io::Task<void> refresh_chain_file(Core& core, std::string context_id, std::string repository_id,
                                  uint32_t disk_index);

/// "<safe>-disk-<key>.qcow2" in the repository; removed when the disk has no point left.
io::Task<void> refresh_latest_link(Core& core, std::string context_id, std::string repository_id,
                                   uint32_t disk_index, uint32_t disk_key);

/// vm.json in "<repository>/<context>".
io::Task<void> write_vm_file(Core& core, std::string context_directory, Vm vm);

}  // namespace engine
