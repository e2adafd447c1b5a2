// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/values/storage_abilities.h"
#include "io/runtime.h"
#include "io/task.h"

namespace engine {

/// Makes every kind of call that a backup makes, on files of its own in `directory`, reads back
/// what it wrote, and removes them. Throws what a backup could not do without, with verb, file and
/// cause. Control thread.
io::Task<StorageAbilities> try_storage(io::Runtime runtime, std::string directory);

}  // namespace engine
