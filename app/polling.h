// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "app/http_client.h"

namespace app {

/// Asks a server again and again how far something is. A server that does not answer for a while,
/// because it is started again say, is asked until it does: standard error says so once. One
/// thread.
class Poll {
 public:
  struct Times {
    std::chrono::milliseconds interval;  ///< between an answer and the next question
    std::chrono::milliseconds patience;  ///< since the last answer, while there is none
  };
  /// `target` is the path after /api/v1. `before_text` ends a line that stands on the terminal.
  Poll(HttpServerAddress server, std::string target, Times times,
       std::function<void()> before_text = {});

  /// Blocks until the next answer. Throws ServerUnreachable when there was none for that long, and
  /// at once ServerRefused, but for the statuses of a server that comes or goes: 502, 503, 504.
  nlohmann::json next();

 private:
  using Clock = std::chrono::steady_clock;

  /// Before the next question: throws that failure once patience has come to its end.
  void bear(const std::string& error, const std::string& hint);
  void say(const std::string& text) const;

  const HttpServerAddress server_;
  const std::string target_;
  const Times times_;
  const std::function<void()> before_text_;
  bool has_asked_ = false, is_silent_ = false;
  Clock::time_point answered_ = Clock::now();
};

}  // namespace app
