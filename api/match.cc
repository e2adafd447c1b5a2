// SPDX-License-Identifier: Apache-2.0
#include "api/match.h"

#include <optional>

namespace api {
namespace {

std::string_view next_segment(std::string_view& pattern) {
  pattern.remove_prefix(1);  // the slash
  const size_t end = std::min(pattern.find('/'), pattern.size());
  const std::string_view segment = pattern.substr(0, end);
  pattern.remove_prefix(end);
  return segment;
}

bool is_variable(std::string_view segment) { return segment.starts_with('{'); }

// One letter per segment of a fitting pattern, so that comparing texts compares patterns: literals
// first. Nothing when the pattern does not fit.
std::optional<std::string> fit(std::string_view pattern, const std::vector<std::string>& segments) {
  std::string shape;
  for (const std::string& segment : segments) {
    if (pattern.empty()) return std::nullopt;
    const std::string_view wanted = next_segment(pattern);
    if (is_variable(wanted) ? segment.empty() : wanted != segment) return std::nullopt;
    shape += is_variable(wanted) ? 'v' : 'l';
  }
  if (!pattern.empty()) return std::nullopt;
  return shape;
}

std::vector<std::pair<std::string_view, std::string>> bind(
    std::string_view pattern, const std::vector<std::string>& segments) {
  std::vector<std::pair<std::string_view, std::string>> variables;
  for (const std::string& segment : segments) {
    const std::string_view wanted = next_segment(pattern);
    if (is_variable(wanted)) variables.emplace_back(wanted.substr(1, wanted.size() - 2), segment);
  }
  return variables;
}

}  // namespace

Match match(std::span<const Route> routes, std::string_view method,
            const std::vector<std::string>& segments) {
  Match best;
  std::string best_shape;
  for (const Route& route : routes) {
    const auto shape = fit(route.pattern, segments);
    if (!shape || (!best.methods.empty() && *shape > best_shape)) continue;
    if (best.methods.empty() || *shape < best_shape) {
      best = {};
      best_shape = *shape;
    }
    best.methods.push_back(route.method);
    if (route.method == method) best.route = &route;
  }
  if (best.route) best.variables = bind(best.route->pattern, segments);
  return best;
}

}  // namespace api
