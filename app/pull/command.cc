#include "app/commands.h"
#include "app/pull/pull.h"

namespace app {

int run_pull(const PullOptions& options) {
  return run_backup_command(
      options, [&](Hub& hub, BackupUnderWay& under_way) { pull(options, hub, under_way); });
}

}  // namespace app
