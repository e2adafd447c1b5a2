// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
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

/// When what could not be dropped or cleaned up is tried again, by id.
using RestorePauses = std::map<std::string, io::SteadyTime>;
/// Drops what has expired, and removes what an earlier life has left.
io::Task<void> look_after_restores(Core& core, RestorePauses& pauses);
/// Does so until the engine shuts down.
io::Task<void> watch_restores(Core& core);

}  // namespace engine
