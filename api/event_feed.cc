// SPDX-License-Identifier: Apache-2.0
#include "api/event_feed.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace api {
namespace {

namespace asio = boost::asio;

constexpr auto kPollInterval = std::chrono::seconds(1);

struct Asked {
  explicit Asked(asio::io_context& loop) : answered(loop) {}
  asio::steady_timer answered;
  std::optional<std::string> event;
};

}  // namespace

EventFeed::ListenerPtr EventFeed::join(Request request, std::string first) {
  auto listener = std::make_shared<Listener>(loop_, std::move(request), std::move(first));
  listener->is_over = stopping_;
  listeners_.insert(listener);
  if (!polling_ && !stopping_) {
    polling_ = true;
    asio::co_spawn(loop_, poll(), asio::detached);
  }
  return listener;
}

void EventFeed::leave(const ListenerPtr& listener) {
  listeners_.erase(listener);
  if (listeners_.empty()) pause_.cancel();
}

void EventFeed::stop() {
  stopping_ = true;
  pause_.cancel();
  for (const ListenerPtr& listener : listeners_) {
    listener->is_over = true;
    listener->woken.cancel();
  }
}

asio::awaitable<void> EventFeed::poll() {
  HttpStream::Error cut_short;
  while (!listeners_.empty() && !stopping_) {
    pause_.expires_after(kPollInterval);
    co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, cut_short));
    if (listeners_.empty() || stopping_) break;
    try {
      const std::optional<std::string> event = co_await ask();
      for (const ListenerPtr& listener : listeners_) tell(*listener, event);
    } catch (const std::exception&) {
      // Out of memory, for example. Listeners that missed this event get the next one.
    }
  }
  polling_ = false;
}

asio::awaitable<std::optional<std::string>> EventFeed::ask() {
  const auto asked = std::make_shared<Asked>(loop_);
  asked->answered.expires_at(asio::steady_timer::time_point::max());
  const bool begun = handlers_.post([this, asked] {
    std::optional<std::string> event;
    try {
      event = api_.jobs_event();
    } catch (const std::exception&) {
      // Whoever asks with GET is told why; the next second may have an answer.
    }
    asio::post(loop_, [asked, event = std::move(event)]() mutable {
      asked->event = std::move(event);
      asked->answered.cancel();
    });
  });
  if (!begun) co_return std::nullopt;  // the next second may have a thread
  HttpStream::Error woken;
  co_await asked->answered.async_wait(asio::redirect_error(asio::use_awaitable, woken));
  co_return std::move(asked->event);
}

void EventFeed::tell(Listener& listener, const std::optional<std::string>& event) {
  if (api_.refusal_of(listener.request)) {
    listener.is_over = true;  // its token is revoked
  } else if (event && *event != listener.last) {
    listener.last = listener.next = *event;
  } else {
    return;
  }
  listener.woken.cancel();
}

}  // namespace api
