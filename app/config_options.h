// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

#include "app/options.h"

/// The options of what an operator asks of the configuration and the catalogue, beside the server.
namespace app {

void declare_config_check(CLI::App& command, ConfigOptions& options);
void declare_config_show(CLI::App& command, ConfigOptions& options);
void declare_config_example(CLI::App& command, ConfigOptions& options);
void declare_catalogue_backup(CLI::App& command, CatalogueBackupOptions& options);

}  // namespace app
