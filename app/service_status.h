// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "io/notify.h"

namespace app {

/// Tells the service manager how `varve serve` is: that it starts, serves, reads its configuration
/// again, stops, what it does just now, and that it is alive.
///
/// Alive means that the control thread answers: a thread of its own asks it, and WATCHDOG=1 goes
/// out for answers only, so that the manager's watchdog fires for a control thread that hangs. A
/// start and a stop get more time for as long as there are answers, or within kPatience of the last
/// one (a large catalogue is checked in one step). Without a manager there is neither thread nor
/// datagram. Any thread, but construction and destruction.
class ServiceStatus {
 public:
  /// Asks the control thread to call `answer` with one line that says what is under way.
  using Ask = std::function<void(std::function<void(std::string)> answer)>;

  /// Says that the service starts.
  explicit ServiceStatus(io::Notifier notifier);
  ServiceStatus(const ServiceStatus&) = delete;
  ~ServiceStatus();

  /// From here on `ask` is called again and again, until unwatch().
  void watch(Ask ask);
  /// Returns when no answer is under way any more: what `ask` refers to may go.
  void unwatch();

  void ready();
  void reloading();
  void stopping();

 private:
  enum class Phase : uint8_t { starting, serving, stopping };
  struct Shared;  // with the control thread, which may answer late

  void run();
  void beat(std::unique_lock<std::mutex>& lock);

  const io::Notifier notifier_;
  const std::chrono::microseconds interval_;
  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace app
