#pragma once

#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"
#include "engine/values/views.h"

/// Restores: points that somebody works with, read-only or by a private overlay. Control thread.
///
/// Invariant: a row says which overlays there may be. It is durable before the first is made and
/// goes after the last is removed, so that nothing is left over whenever varve is killed.
/// Spec: docs/restore.md, "A virtual machine from a point".
namespace engine {

io::Task<RestoreView> create_restore(Core& core, NewRestore request);
io::Task<std::vector<RestoreView>> restore_views(Core& core);
io::Task<RestoreView> restore_view(Core& core, std::string id);
io::Task<void> drop_restore(Core& core, std::string id);

/// Until the engine shuts down: drops what has expired, and removes what an earlier life has left.
io::Task<void> watch_restores(Core& core);

}  // namespace engine
