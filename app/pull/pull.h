// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "app/pull/hub.h"
#include "app/pull/under_way.h"

namespace app {

/// One backup of all disks of a VM, from their sources to the published points. Returns its id.
/// Blocks; throws ServerRefused, UsageError, or what failed, and leaves the backup to `under_way`.
std::string pull(const PullOptions& options, Hub& hub, BackupUnderWay& under_way);

}  // namespace app
