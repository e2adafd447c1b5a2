// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api/http_stream.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "api/api.h"
#include "api/handler_pool.h"

namespace api {

/// Those who listen to GET /api/v1/events, and the one question to the engine that is asked for all
/// of them, once a second; none while nobody listens.
///
/// A listener that is slow finds the newest event when it is ready, never a queue. Belongs to the
/// network thread; the engine is asked on a handler thread.
class EventFeed {
 public:
  struct Listener {
    Listener(boost::asio::io_context& loop, Request asked, std::string first)
        : woken(loop), request(std::move(asked)), last(std::move(first)) {}
    boost::asio::steady_timer woken;  // cancelled when there is something to do
    const Request request;            // what let it in
    std::string last, next;           // events; "" for none
    bool is_over = false;
  };
  using ListenerPtr = std::shared_ptr<Listener>;

  /// All outlive this object, and its last listener the loop's run.
  EventFeed(boost::asio::io_context& loop, const Api& api, HandlerPool& handlers, size_t most)
      : loop_(loop), api_(api), handlers_(handlers), most_(most), pause_(loop) {}

  bool is_full() const { return listeners_.size() >= most_; }
  /// `first` is the event that it has got with the answer.
  ListenerPtr join(Request request, std::string first);
  void leave(const ListenerPtr& listener);
  /// Every listener is over.
  void stop();

 private:
  boost::asio::awaitable<void> poll();
  /// Nothing when the engine has no answer now.
  boost::asio::awaitable<std::optional<std::string>> ask();
  void tell(Listener& listener, const std::optional<std::string>& event);

  boost::asio::io_context& loop_;
  const Api& api_;
  HandlerPool& handlers_;
  const size_t most_;
  boost::asio::steady_timer pause_;
  std::set<ListenerPtr> listeners_;
  bool polling_ = false, stopping_ = false;
};

}  // namespace api
