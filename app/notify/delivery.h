// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "app/notify/host_lookup.h"
#include "app/notify/message.h"

namespace app {

/// Why a message did not arrive, as a sentence for the log.
class DeliveryFailure : public std::runtime_error {
 public:
  DeliveryFailure(const std::string& text, bool may_help_again)
      : std::runtime_error(text), may_help_again(may_help_again) {}
  bool may_help_again;  ///< to try once more
};

/// One way out of varve. deliver() is called by one thread, one message at a time, and blocks for a
/// bounded time; interrupt(), from another thread, ends it at once, also those to come.
class DeliveryWay {
 public:
  virtual ~DeliveryWay() = default;
  virtual void deliver(const Message& message) = 0;  ///< throws DeliveryFailure
  virtual void interrupt() noexcept = 0;
};

/// A POST of the JSON; ten seconds for each try. `user_agent`: "varve/0.1". Throws UsageError.
std::unique_ptr<DeliveryWay> make_webhook(const std::string& url, const std::string& user_agent,
                                          ResolveHost resolve = resolve_host);
/// /bin/sh -c, with the JSON at its standard input; a minute, then it and its children are killed.
std::unique_ptr<DeliveryWay> make_command(std::string command);

struct DeliveryTimes {
  int tries = 3;
  std::chrono::milliseconds first_pause{1000};  ///< the next ones are five times as long each
  std::chrono::milliseconds at_stop{5000};      ///< for what waits when varve stops
};

/// Delivers messages one after the other on a thread of its own. What waits is bounded: beyond
/// kWaitingMax the newest is dropped, counted, and said in the log. add() and counts() from any
/// thread.
class DeliveryQueue {
 public:
  static constexpr size_t kWaitingMax = 1000;
  struct Counts {
    uint64_t delivered = 0, failed = 0, dropped = 0;
  };

  /// `word`: "url" or "command".
  DeliveryQueue(std::string word, std::unique_ptr<DeliveryWay> way, DeliveryTimes times = {});
  /// Takes nothing more; what waits has `at_stop` from now on.
  void begin_stop();
  /// Delivers what waits, until `at_stop` after begin_stop() or now; the rest is dropped.
  ~DeliveryQueue();

  void add(std::shared_ptr<const Message> message) noexcept;
  Counts counts() const;
  const std::string& word() const { return word_; }

 private:
  void run();
  void deliver(const Message& message);
  bool pause(std::chrono::milliseconds time);

  const std::string word_;
  const std::unique_ptr<DeliveryWay> way_;
  const DeliveryTimes times_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<const Message>> waiting_;
  bool stopping_ = false, given_up_ = false, is_idle_ = true;
  std::chrono::steady_clock::time_point stop_until_;
  Counts counts_;
  std::thread thread_;
};

}  // namespace app
