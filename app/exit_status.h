// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

namespace app {

/// How a command has ended. What each means stands in kExitMeanings, which help, man pages and
/// docs/commands.md say as well. `varve check` has codes of its own for what it finds.
enum ExitStatus : int {
  kOk = 0,
  kFailed = 1,
  kWrongUsage = 2,
  kIncomplete = 3,
  kNotFound = 10,
  kBusy = 11,
  kDenied = 12,
  kDamaged = 13,
  kInterrupted = 130,
};

struct ExitMeaning {
  ExitStatus status;
  const char* word;     ///< of the errors that --json prints, where the server gave none
  const char* meaning;  ///< as help says it
};

inline constexpr std::array kExitMeanings = {
    ExitMeaning{kOk, "ok", "done"},
    ExitMeaning{kFailed, "failed", "it was tried and did not work, or the server is not there"},
    ExitMeaning{kWrongUsage, "usage", "wrong usage: nothing was tried"},
    ExitMeaning{kIncomplete, "incomplete", "done in part: something was left out, and named"},
    ExitMeaning{kNotFound, "not_found", "no such VM, disk, point, job or repository"},
    ExitMeaning{kBusy, "busy", "what is there already, locked or under way forbids it"},
    ExitMeaning{kDenied, "denied", "refused by access: the token, or where the call comes from"},
    ExitMeaning{kDamaged, "damaged", "stored data are not what was sent"},
    ExitMeaning{kInterrupted, "interrupted", "interrupted by a signal"},
};

constexpr const ExitMeaning& meaning_of(int status) {
  for (const ExitMeaning& meaning : kExitMeanings) {
    if (meaning.status == status) return meaning;
  }
  return kExitMeanings[kFailed];
}

}  // namespace app
