// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/check/check_chain.h"

/// What `varve check` knows beyond the images: names of the catalogue, and sidecars. Reads only,
/// beside a running `varve serve` as well.
namespace engine {

/// The published images that a name stands for.
struct NamedImages {
  std::vector<std::string> paths;    ///< ascending disk index
  std::vector<uint32_t> disks;       ///< the indexes
  std::string repository_directory;  ///< parents must lie in here
};

/// `name` is a backup id (all its disks) or an image id. Throws std::runtime_error with a sentence
/// when there is no catalogue, no such name, or nothing published under it.
NamedImages find_backup(const std::string& catalogue_path, const std::string& name);

/// Compares each published image of the report with its sidecar, which is what was published: the
/// hash in the image's record, the file's length, the parent's name. A sidecar that is missing is
/// a problem when `required`, else a note: an image may be copied away without it.
io::Task<void> check_sidecars(io::Runtime runtime, qcow::ChainReport& report, bool required);

}  // namespace engine
