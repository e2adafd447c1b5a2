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

bool termination_comes_within(std::chrono::milliseconds patience) {
  const sigset_t signals = termination_signals();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(patience);
  timespec most{};
  most.tv_sec = seconds.count();
  most.tv_nsec = std::chrono::nanoseconds(patience - seconds).count();
  return ::sigtimedwait(&signals, nullptr, &most) > 0;
}

}  // namespace io
