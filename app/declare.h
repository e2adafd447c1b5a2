// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/options.h"

/// The options of the verbs that have no file of their own for them. `checked` says what can be
/// said without a look at the world, and throws UsageError.
namespace app {

void declare_serve(CLI::App& command, ServeArguments& arguments);
/// What the command line says wins over the file.
ServeOptions checked(ServeArguments arguments);

struct CreateArguments {
  CreateOptions options;
  std::string size;  ///< "": that of the backing file
};

void declare_create(CLI::App& command, CreateArguments& arguments);
CreateOptions checked(CreateArguments arguments);

void declare_check(CLI::App& command, CheckOptions& options);
void declare_rebuild(CLI::App& command, RebuildOptions& options);
void declare_read_image(CLI::App& command, ReadImageOptions& options);

}  // namespace app
