// SPDX-License-Identifier: Apache-2.0
#include "app/nearest.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/spelling.h"

namespace app {
std::string nearest(std::string_view word, std::span<const std::string> known) {
  // One mistake in three letters is a slip; more is another word.
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  std::string found;
  for (const std::string& candidate : known) {
    const size_t edits = api::slips_between(word, candidate);
    if (edits >= best) continue;
    best = edits;
    found = candidate;
  }
  if (!found.empty() || word.size() < 3) return found;
  // Whoever stops early has said the beginning.
  const auto begun = std::find_if(known.begin(), known.end(), [word](const std::string& candidate) {
    return candidate.starts_with(word);
  });
  return begun == known.end() ? "" : *begun;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> known) {
  const std::string meant = nearest(word, known);
  return meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant);
}

}  // namespace app
