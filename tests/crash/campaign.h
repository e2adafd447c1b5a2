// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

#include "tests/crash/image_run.h"

namespace crash {

inline bool is_sanitized() { return std::getenv("VARVE_SANITIZED") != nullptr; }

/// How much a campaign judges. A sanitized build is ten times slower and looks for errors of
/// memory: a tenth of the usual shows them.
inline uint64_t amount(uint64_t usual, uint64_t in_long_mode) {
  if (std::getenv("VARVE_LONG") != nullptr) return in_long_mode;
  return is_sanitized() ? usual / 10 : usual;
}

/// A failure, and the run it came about in.
struct Finding {
  uint64_t seed = 0;
  Shape shape;
  std::vector<Op> script;
  Failure failure;
};

/// Runs seeds from the first one on, until one fails or so many states have been judged.
std::optional<Finding> search(Campaign& campaign, uint64_t states_wanted);

/// One run: the whole of it, or one cut (Campaign::only_cut).
std::optional<Finding> run_seed(Campaign& campaign, uint64_t seed);

/// The finding in words: what, the seed and cut that replay it, the few operations that suffice.
std::string report(const Finding& finding);

/// Drops operations as long as the run still fails.
Finding shrink(Finding finding);

}  // namespace crash
