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
  std::string rate, request_size;
};

void declare_pull(CLI::App& command, PullArguments& arguments);

/// What can be said of them without a look at the world. Throws UsageError.
PullOptions checked(PullArguments arguments);

}  // namespace app
