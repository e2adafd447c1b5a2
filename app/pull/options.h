// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/options.h"

namespace app {

/// `varve pull` as it is typed: what names a disk is not taken apart yet.
struct PullArguments {
  PullOptions options;
  std::vector<std::string> disks, bitmaps, changed;  ///< "N=SOURCE", "NAME" or "N=NAME", "N=FILE"
  std::string sample, rate, request_size, server_patience;
};

void declare_pull(CLI::App& command, PullArguments& arguments);

/// `varve adopt` as it is typed.
struct AdoptArguments {
  AdoptOptions options;
  std::vector<std::string> files;  ///< "FILE" or "N=FILE"
  uint32_t disk = 0;               ///< of files without a number
};

void declare_adopt(CLI::App& command, AdoptArguments& arguments);
AdoptOptions checked(AdoptArguments arguments);

/// What can be said of them without a look at the world. Throws UsageError.
PullOptions checked(PullArguments arguments);

}  // namespace app
