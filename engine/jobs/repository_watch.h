// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"

/// Repositories that come and go: a share that is not mounted yet, a disk that was taken out, a
/// file system that has turned read-only.
///
/// Invariant: whatever a repository suffers from, everything else runs, and nothing is written into
/// a directory before its marker has shown that it is the repository's. A repository that can be
/// used again is used again, once what the time before has left in it is settled (recovery.h).
/// Control thread.
namespace engine {

/// At the start: takes every repository for itself and recovers it; one that does not answer in
/// time is tried further in the background. Throws InUse when another varve has the repository of
/// the options.
io::Task<void> open_repositories(Core& core);

/// Looks at every repository each repository_interval, until the engine shuts down.
io::Task<void> watch_repositories(Core& core);

/// Throws repository_unavailable unless the repository can be used at this moment.
io::Task<void> require_available(Core& core, Repository repository);

/// Keeps other varves out. Throws with the other's pid, and when two repositories would share one
/// directory.
io::Task<void> lock_repository(Core& core, Repository repository);

/// Measures the repository's file system and keeps the figures.
io::Task<StorageMeasure> measure_and_keep(Catalogue& catalogue, io::Runtime runtime,
                                          Repository repository);

/// Why the directory is not that of the repository, thrown as std::runtime_error. Returns what its
/// marker says; "" when it has none and is to get one: it is new, or has the repository's images
/// and was in use before there were markers or has lost its own.
io::Task<std::string> identify(Catalogue& catalogue, io::FileSystem& files, Repository repository);

}  // namespace engine
