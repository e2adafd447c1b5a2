// SPDX-License-Identifier: Apache-2.0
#include "api/spelling.h"

#include <algorithm>
#include <string>

#include "api/url.h"

namespace api {
namespace {

// "vmName", "vm-name" and "VM_NAME" as "vmname".
std::string letters_of(std::string_view name) {
  std::string letters = in_lower_case(name);
  std::erase_if(letters, [](char c) { return c == '_' || c == '-'; });
  return letters;
}

// Whole words of `known` at its beginning or end.
bool is_part_of(std::string_view given, std::string_view known) {
  if (given.empty() || given.size() >= known.size()) return false;
  return (known.starts_with(given) && known[given.size()] == '_') ||
         (known.ends_with(given) && known[known.size() - given.size() - 1] == '_');
}

constexpr size_t kShort = 4, kLongest = 64;

}  // namespace

size_t slips_between(std::string_view one, std::string_view other) {
  std::vector<std::vector<size_t>> least(one.size() + 1, std::vector<size_t>(other.size() + 1));
  for (size_t i = 0; i <= one.size(); ++i) {
    for (size_t j = 0; j <= other.size(); ++j) {
      if (i == 0 || j == 0) {
        least[i][j] = i + j;
        continue;
      }
      const size_t replaced = least[i - 1][j - 1] + (one[i - 1] == other[j - 1] ? 0 : 1);
      least[i][j] = std::min({least[i - 1][j] + 1, least[i][j - 1] + 1, replaced});
      const bool swapped =
          i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
      if (swapped) least[i][j] = std::min(least[i][j], least[i - 2][j - 2] + 1);
    }
  }
  return least[one.size()][other.size()];
}

std::optional<std::string_view> likely_meant(std::string_view given,
                                             const std::vector<std::string_view>& known) {
  if (given.size() > kLongest) return std::nullopt;
  const std::string letters = letters_of(given), lower = in_lower_case(given);
  for (const std::string_view name : known) {
    if (letters == letters_of(name)) return name;
  }
  for (const std::string_view name : known) {
    if (is_part_of(lower, name)) return name;
  }
  if (letters.size() < kShort) return std::nullopt;  // any three letters are close to some name
  std::optional<std::string_view> nearest;
  size_t fewest = letters.size() > kShort ? 3 : 2;
  for (const std::string_view name : known) {
    const size_t slips = slips_between(letters, letters_of(name));
    if (slips >= fewest) continue;
    fewest = slips;
    nearest = name;
  }
  return nearest;
}

}  // namespace api
