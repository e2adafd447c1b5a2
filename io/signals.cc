// SPDX-License-Identifier: Apache-2.0
#include "io/signals.h"

#include <csignal>
#include <initializer_list>

namespace io {
namespace {

sigset_t termination_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  return signals;
}

}  // namespace

void block_termination_signals() {
  const sigset_t signals = termination_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int wait_for_signal() {
  const sigset_t signals = termination_signals();
  int number = 0;
  while (sigwait(&signals, &number) != 0) {
  }
  return number;
}

void block_interruption_signals() {
  sigset_t signals = termination_signals();
  struct sigaction inherited {};
  // An ignored signal that is blocked would be kept for wait_for_signal().
  ::sigaction(SIGHUP, nullptr, &inherited);
  if (inherited.sa_handler == SIG_IGN) sigdelset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

}  // namespace io
