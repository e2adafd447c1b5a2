// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "engine/engine.h"

namespace api {

/// The event `jobs`, whose data is the answer of GET /backups?status=running; as it is sent. Throws
/// what the engine throws. Blocks as long as the engine does.
std::string jobs_event(engine::Engine& engine, int64_t pid);

}  // namespace api
