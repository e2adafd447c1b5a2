// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

#include "app/options.h"

namespace app {

/// The options of `varve restore`, on the command line.
void declare_restore(CLI::App& command, RestoreOptions& options);

/// What can be said of them without a look at the world: VM and POINT apart, the default server.
/// Throws UsageError.
RestoreOptions checked(RestoreOptions options);

}  // namespace app
