// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/values/signals.h"
#include "io/block_device.h"
#include "io/runtime.h"
#include "io/task.h"

namespace engine {

/// Compares a new image with its parents: their partition tables and file systems, and what the
/// parents hold at `incompressible_places`, where the new image holds data that cannot be
/// compressed. Reads some megabytes at most. On the thread of both; they outlive it.
io::Task<ParentComparison> compare_with_parent(io::BlockDevice& image, io::BlockDevice& parents,
                                               std::vector<uint64_t> incompressible_places);

}  // namespace engine
