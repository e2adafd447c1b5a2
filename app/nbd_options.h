// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/options.h"

namespace CLI {
class App;
}

namespace app {

/// The options of `varve nbd`: those of qemu-nbd and nbdkit, by the names that people know.
void declare_nbd(CLI::App& command, NbdOptions& options);

/// What was given goes together. Throws UsageError.
NbdOptions checked(NbdOptions options);

}  // namespace app
