// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "app/verbs.h"

namespace app {

/// Throws UsageError with a sentence, which names what was meant where that can be guessed.
Invocation parse_command_line(int argc, const char* const* argv);

/// The text of `varve help WORDS`; without words that of `varve --help`. Throws UsageError for
/// words that are no verb.
std::string help_text(const std::vector<std::string>& words);

/// Whether --json is among the words, so that errors are printed in JSON before they are parsed.
bool wants_json(int argc, const char* const* argv);

}  // namespace app
