// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/jobs/core.h"
#include "io/task.h"

namespace engine {

/// Takes catalogue and repositories for itself and recovers what the life before has left; then
/// jobs may be started. Throws with a sentence when varve cannot run here. Control thread.
io::Task<void> bring_up(Core& core);

/// Takes over what may change while varve runs; each use of it reads it anew. Control thread.
void change_options(Core& core, const EngineOptions& options);

}  // namespace engine
