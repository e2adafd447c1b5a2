// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace api {

/// Levels of arrays and objects that a body may have. The schemas need five; the JSON library
/// copies and prints values by recursion, so that what is deeper could exhaust a thread's stack.
inline constexpr size_t kNestingMax = 32;

/// Whether JSON text opens more than kNestingMax arrays and objects within each other. Looks at
/// bytes only, so it may be asked before anything is parsed: for what is not JSON the answer is the
/// same up to the byte where a parser stops. Pure.
constexpr bool is_nested_too_deeply(std::string_view json) {
  size_t depth = 0;
  bool in_text = false;
  for (size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (in_text) {
      if (c == '\\') ++at;  // whatever is escaped, it ends no text
      if (c == '"') in_text = false;
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kNestingMax) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

static_assert(!is_nested_too_deeply(R"({"a":["[[\"[["]})"));

}  // namespace api
