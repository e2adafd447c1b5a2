// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/repository/rebuild.h"
#include "io/runtime.h"
#include "io/task.h"

/// A catalogue out of the files of one repository: what `varve rebuild` does.
namespace engine {

struct RebuildRequest {
  std::string catalogue_path;  ///< made when missing; what it knows already stays
  std::string directory;       ///< of the repository, absolute
  std::string repository_id;   ///< added as a local repository when the catalogue lacks it
  int64_t pid = 0;             ///< for the lock files
};

struct RebuildReport {
  size_t vms = 0, backups = 0, images = 0;  ///< found whole
  std::vector<std::string> left_out;        ///< a sentence each
};

/// Reads vm.json, images, sidecars and last proofs below `directory`, and takes over each job that
/// is there as a whole. Changes no file of the repository but its lock. Throws when a varve works
/// with catalogue or repository, or when the id belongs to another directory.
io::Task<RebuildReport> rebuild_catalogue(io::Runtime runtime, RebuildRequest request);

}  // namespace engine
