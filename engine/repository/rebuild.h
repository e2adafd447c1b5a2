// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalogue/rebuild_plan.h"

/// The catalogue out of a repository's files.
///
/// Invariant: a job is accepted as a whole or not at all, and only on accepted parents: so a crash
/// in the middle of a publish, or a lost file, never makes half a backup of a VM.
/// Spec: docs/jobs.md, "Files of a repository". Pure; the caller reads the files.
namespace engine {

/// An image under its final name, with its sidecar.
struct FoundImage {
  std::string image_path;
  uint64_t file_bytes = 0, allocated_bytes = 0;
  std::string sidecar;  ///< its text; "" when there is none
  std::string proof;    ///< text of its last proof; "" when there is none
};

/// What the files of repository `repository_id` say. `vm_files` are the texts of vm.json; a VM
/// without one is made up from its sidecars. The id in the sidecars may be another one, when the
/// directory was registered again.
RebuildPlan plan_rebuild(const std::string& repository_id, const std::vector<std::string>& vm_files,
                         const std::vector<FoundImage>& images);

}  // namespace engine
