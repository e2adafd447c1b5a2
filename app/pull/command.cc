// SPDX-License-Identifier: Apache-2.0
#include "app/commands.h"
#include "app/pull/pull.h"
#include "app/pull/repair.h"

namespace app {

int run_pull(const PullOptions& options) {
  return run_backup_command(options, [&](Hub& hub, BackupUnderWay& under_way) {
    if (options.repair) {
      repair(options, hub, under_way);
    } else {
      pull(options, hub, under_way);
    }
  });
}

}  // namespace app
