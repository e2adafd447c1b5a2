// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <any>
#include <utility>
#include <vector>

#include "app/command_line.h"
#include "app/options.h"

namespace app {

/// The options of a command line that asks for one command; throws as parse_command_line does.
template <class Options>
Options parse(std::vector<const char*> words) {
  words.insert(words.begin(), "varve");
  return std::any_cast<Options>(
      parse_command_line(static_cast<int>(words.size()), words.data()).options);
}

}  // namespace app
