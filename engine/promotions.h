// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// Promotions: a restore's disks, copied to where they stand alone. Control thread.
///
/// Invariant: the copy grows under "<path>.partial" and gets its name by one rename, when all disks
/// are whole and durable; the row is durable before anything of it is there, so that whatever a
/// kill leaves is found, and taken away or ended. Spec: docs/restore.md, "An image that stands
/// alone".
namespace engine {

/// Returns once the copy has started; it continues in Core::background.
io::Task<void> promote_restore(Core& core, std::string restore_id, NewPromotion request);
/// Returns once it has ended: nothing of the copy is left, unless it was whole already.
io::Task<void> cancel_promotion(Core& core, std::string restore_id);

/// Cancels the one that is under way, and takes away what an earlier life of varve has left of one;
/// does nothing when there is neither.
io::Task<void> end_promotion(Core& core, Restore restore);

}  // namespace engine
