// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/pull/wanted.h"

/// What `varve pull --repair` says: sentences, or JSON lines. docs/verify.md, "Healing".
namespace app {

/// What became of the damaged clusters of one disk.
struct RepairedDisk {
  uint32_t index = 0;
  std::vector<WantedCluster> same;     ///< the source holds them as they were sent; ascending
  std::vector<WantedCluster> changed;  ///< it holds something else by now
  std::vector<WantedCluster> unknown;  ///< no manifest says what was sent
};

void report_nothing_wanted(bool json, const std::string& vm_name);
void report_repaired(bool json, const RepairedDisk& disk);
void report_repair_published(bool json, const std::string& vm_name, const std::string& backup_id,
                             const std::string& change_id);
/// What was healed is whole in the newest point only.
void report_still_damaged(bool json, const std::vector<std::string>& backups);
/// `now`: after the repair. The server stores nothing that its chain gives it as it was sent.
void report_still_wanted(bool json, const RepairedDisk& disk, const Wanted& now);

}  // namespace app
