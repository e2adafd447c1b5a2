// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>

namespace app {

/// How a command ends when SIGINT, SIGTERM or SIGHUP tells it to: with kInterrupted, whatever it is
/// doing just then. Both functions run on a thread of their own, beside the command.
struct Interruption {
  /// Makes the command end by itself, for which it has `patience`.
  std::function<void()> begin = {};
  std::chrono::milliseconds patience{0};
  /// What is said when it has not.
  std::function<void()> last_words = {};
};

/// From now on a signal does that, and a second one ends the process at once. A later call replaces
/// an earlier one; the first is made before any other thread starts. `nohup` keeps SIGHUP away.
void when_interrupted(Interruption interruption);

/// Ends at once, and says `text` as an error.
void when_interrupted(bool json, const std::string& text);

}  // namespace app
