// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>

/// What a service manager is told of this process: the datagrams of sd_notify(3), one or more lines
/// NAME=VALUE each. The protocol is stable and small; libsystemd is not needed for it.
namespace io {

/// The way to the service manager, if there is one. Any thread.
class Notifier {
 public:
  /// Nobody listens.
  Notifier() = default;

  /// From $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID, which are unset: no child is to speak
  /// for this process. Before the first thread.
  static Notifier from_environment();

  bool is_heard() const { return !socket_.empty(); }

  /// How often the manager wants to hear WATCHDOG=1 at least; zero: not at all.
  std::chrono::microseconds watchdog() const { return watchdog_; }

  /// Sends "READY=1\nSTATUS=…". A manager that does not take it within a second changes nothing.
  void send(std::string_view lines) const noexcept;

 private:
  std::string socket_;  // a path, or the name of an abstract socket after a NUL; "": none
  std::chrono::microseconds watchdog_{0};
};

/// CLOCK_MONOTONIC, as MONOTONIC_USEC= says it beside RELOADING=1.
std::chrono::microseconds monotonic_time();

}  // namespace io
