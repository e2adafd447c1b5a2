// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/pull/hub.h"
#include "app/pull/under_way.h"

namespace app {

/// `varve pull --repair`: makes the newest point of a VM whole again. Of the clusters that
/// verifications have found damaged in it, those go into an incremental on it which the source
/// still holds as they were sent, by their sums. The new point is of the newest one's state and has
/// its change id, so that what follows counts from the same checkpoint.
///
/// Says what was healed, what the source holds otherwise by now, and which older points stay
/// damaged. Makes no backup when there is nothing to heal. Blocks; throws std::runtime_error when
/// nothing can be healed, else as pull().
void repair(const PullOptions& options, Hub& hub, BackupUnderWay& under_way);

}  // namespace app
