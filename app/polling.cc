// SPDX-License-Identifier: Apache-2.0
#include "app/polling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

#include "app/api_call.h"
#include "app/setting_kinds.h"

namespace app {
namespace {

/// How far something is, is known without a look at storage. A server that hangs is asked anew.
constexpr std::chrono::seconds kQuestionPatience(10);

bool is_away(int status) { return status == 502 || status == 503 || status == 504; }

}  // namespace

Poll::Poll(HttpServerAddress server, std::string target, Times times,
           std::function<void()> before_text)
    : server_(std::move(server)),
      target_(std::move(target)),
      times_(times),
      before_text_(std::move(before_text)) {}

nlohmann::json Poll::next() {
  for (;;) {
    if (std::exchange(has_asked_, true)) std::this_thread::sleep_for(times_.interval);
    const auto left = std::chrono::ceil<std::chrono::seconds>(
        std::max<Clock::duration>(answered_ + times_.patience - Clock::now(), Clock::duration(1)));
    try {
      nlohmann::json answer =
          api_call(server_, {.target = target_, .patience = std::min(left, kQuestionPatience)});
      answered_ = Clock::now();
      if (std::exchange(is_silent_, false)) say(fmt::format("{} answers again", server_.url));
      return answer;
    } catch (const ServerUnreachable& silent) {
      bear(silent.error(), silent.hint());
    } catch (const ServerRefused& refused) {
      if (!is_away(refused.status())) throw;
      bear(refused.error(), refused.hint());
    }
  }
}

void Poll::bear(const std::string& error, const std::string& hint) {
  const std::string patience = duration_value(times_.patience);
  if (Clock::now() - answered_ >= times_.patience) {
    throw ServerUnreachable(fmt::format("{}; no answer for {}", error, patience), hint);
  }
  if (std::exchange(is_silent_, true)) return;
  say(fmt::format("{}; asking again for {}", error, patience));
}

void Poll::say(const std::string& text) const {
  if (before_text_) before_text_();
  fmt::print(stderr, "varve: {}\n", text);
}

}  // namespace app
