// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "app/operate/client.h"
#include "io/clock.h"

namespace app {

/// Whether that is the id of a backup, a verification or a restore that the server knows. A VM may
/// be called like one, and is meant if not.
bool is_task(const Client& client, const std::string& id);

/// Shows the progress of a backup, a verification, or the copy of a restore, until it has ended;
/// returns the exit status. A signal ends the process, not what is followed.
int follow(const Client& client, const std::string& id, io::Duration patience);

}  // namespace app
