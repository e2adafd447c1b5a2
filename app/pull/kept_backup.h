// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "app/pull/hub.h"

namespace app {

/// The failed backup that --resume names, as the server knows it: what a pull must fit, before
/// anything is registered, started or sent.
class KeptBackup {
 public:
  /// Throws ServerRefused when there is no such backup.
  KeptBackup(Hub& hub, std::string backup_id);

  /// Throws PullRefused when it is another VM's.
  void require_of(Hub& hub, const std::string& vm_name) const;
  /// Throws PullRefused when its changes count from a point and the pull does not say from which.
  void require_full() const;
  /// Throws PullRefused when disk `index` had another size when the backup began.
  void require_size(uint32_t index, uint64_t bytes) const;

 private:
  const std::string id_;
  std::string vm_name_, context_id_;
  bool is_full_ = false;
  std::map<uint32_t, uint64_t> disk_bytes_;  // by index
};

}  // namespace app
