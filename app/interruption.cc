// SPDX-License-Identifier: Apache-2.0
#include "app/interruption.h"

#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>

#include "app/api_call.h"
#include "app/exit_status.h"
#include "app/failure.h"
#include "io/signals.h"

namespace app {
namespace {

/// Never freed: the signal's thread outlives everything.
struct Interruptions {
  std::mutex mutex;
  Interruption present;  // guarded by mutex
  bool is_watched = false;
};

Interruptions& interruptions() {
  static Interruptions& all = *new Interruptions;
  return all;
}

void end_at_second_signal() {
  io::wait_for_signal();
  ::_exit(kInterrupted);
}

void end_at_signal() {
  io::wait_for_signal();
  std::thread(end_at_second_signal).detach();
  Interruption interruption;
  {
    const std::lock_guard lock(interruptions().mutex);
    interruption = interruptions().present;
  }
  if (interruption.begin) interruption.begin();
  std::this_thread::sleep_for(interruption.patience);
  if (interruption.last_words) interruption.last_words();
  ::_exit(kInterrupted);
}

}  // namespace

void when_interrupted(Interruption interruption) {
  const std::lock_guard lock(interruptions().mutex);
  interruptions().present = std::move(interruption);
  if (std::exchange(interruptions().is_watched, true)) return;
  io::block_interruption_signals();
  std::thread(end_at_signal).detach();
}

void when_interrupted(bool json, const std::string& text) {
  when_interrupted({.last_words = [json, text] {
    if (::isatty(STDERR_FILENO) == 1)
      std::fputs("\n", stderr);  // after "^C", or a line of progress
    print_failure(json, failure_of(CommandFailed(kInterrupted, text)));
    if (json) std::fflush(stdout);
  }});
}

}  // namespace app
