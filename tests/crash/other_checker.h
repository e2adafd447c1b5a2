// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "tests/crash/disk.h"

namespace crash {

/// What `qemu-img check` says against the images of a state; leaked clusters are allowed.
std::optional<std::string> ask_other_checker(const State& state);

}  // namespace crash
