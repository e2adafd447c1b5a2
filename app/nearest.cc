#include "app/nearest.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace app {
namespace {

/// The optimal string alignment distance.
size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> edits(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) edits[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) edits[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t exchanged = edits[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      edits[i][j] = std::min({edits[i - 1][j] + 1, edits[i][j - 1] + 1, exchanged});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        edits[i][j] = std::min(edits[i][j], edits[i - 2][j - 2] + 1);
      }
    }
  }
  return edits[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view word, std::span<const std::string> known) {
  // One mistake in three letters is a slip; more is another word.
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  std::string found;
  for (const std::string& candidate : known) {
    const size_t edits = edits_between(word, candidate);
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
