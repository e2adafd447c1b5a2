// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/values/notification.h"

namespace app {

/// A notification as it leaves varve.
struct Message {
  std::string json;  ///< one object, with the members and, below `details`, what else is known
  /// The members but `details`, as a command finds them: VARVE_EVENT, VARVE_VM_NAME, …
  std::vector<std::pair<std::string, std::string>> environment;
  std::string about;  ///< for the log: "failed backup-web01-1760000000"
};

/// `host`: where this varve runs. A text of more than 4 KiB is cut.
Message message_of(const engine::Notification& notification, const std::string& host);

}  // namespace app
