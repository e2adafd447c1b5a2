// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/options.h"

namespace app {

/// `varve verify` as it is typed.
struct VerifyArguments {
  VerifyOptions options;
  bool all = false;
  std::string reader = "both", rate;
};

void declare_verify(CLI::App& command, VerifyArguments& arguments);

/// What can be said of them without a look at the world. Throws UsageError.
VerifyOptions checked(VerifyArguments arguments);

}  // namespace app
