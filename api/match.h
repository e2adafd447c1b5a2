// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/routes.h"

namespace api {

struct Match {
  const Route* route = nullptr;           ///< nothing: see methods
  std::vector<std::string_view> methods;  ///< of the matching pattern; empty: unknown path
  std::vector<std::pair<std::string_view, std::string>> variables;
};

/// Finds the route for a method and decoded path segments. Of two patterns that fit, the one with
/// a literal at the first place where they differ wins, whatever its methods. A variable takes any
/// segment that is not empty. Pure.
Match match(std::span<const Route> routes, std::string_view method,
            const std::vector<std::string>& segments);

}  // namespace api
