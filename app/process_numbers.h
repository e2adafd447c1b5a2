// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api/metrics.h"

namespace app {

/// What /proc and the kernel say of this process, now. Blocks for microseconds; any thread.
api::ProcessNumbers process_numbers();

}  // namespace app
