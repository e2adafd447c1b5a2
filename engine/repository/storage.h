// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/values/types.h"
#include "io/file.h"
#include "io/runtime.h"

/// A repository as a directory on some disk: where it is, how much fits, whether it works.
/// Belongs to the control thread.
namespace engine {

/// Makes a local repository's directory, and insists that a network repository's mount point is
/// one. Throws std::runtime_error with a sentence.
io::Task<void> prepare_repository(io::FileSystem& files, RepositoryType type,
                                  std::string directory);

/// Whether another file system begins at `directory`.
io::Task<bool> is_mount_point(io::FileSystem& files, std::string directory);

io::Task<StorageMeasure> measure_storage(io::Runtime runtime, std::string directory);

/// What a file system of `total_bytes` keeps free: what was configured, else 1 GiB or one percent,
/// whichever is less.
uint64_t reserve_of(uint64_t total_bytes, std::optional<uint64_t> configured_bytes);

}  // namespace engine
