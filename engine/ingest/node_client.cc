// SPDX-License-Identifier: Apache-2.0
#if defined(__SANITIZE_THREAD__)
// Asio's fences are not understood by ThreadSanitizer; here they guard nothing that it must see.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include "engine/ingest/node_client.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <utility>

namespace engine {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::use_awaitable;
using asio::ip::tcp;

constexpr size_t kAnswerBytesMax = 4096;                 // of text that we keep
constexpr auto kBodyPatience = std::chrono::seconds(1);  // for the body of an accepting answer

void redact(std::string& text, const std::string& secret) {
  if (secret.empty()) return;
  for (size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += 3) {
    text.replace(at, secret.size(), "***");
  }
}

/// One call from its first connection attempt to its answer. Lives on the client's thread; whoever
/// finishes first (the exchange, the deadline, stop) gives the answer, the others find it given.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  using Done = std::function<void(NodeAnswer)>;

  Exchange(asio::io_context& loop, const io::HttpUrl& url, const NodeTimes& times, NodeCall call,
           Done done)
      : url_(url),
        times_(times),
        secret_(call.vcenter_password),
        resolver_(loop),
        stream_(loop),
        pause_(loop),
        deadline_(loop),
        done_(std::move(done)) {
    request_.method(http::verb::post);
    request_.target(url.base_path() + "/api/v1/backup/start");
    request_.set(http::field::host, url.authority());
    request_.set(http::field::user_agent, "varve");
    request_.set(http::field::content_type, "application/json");
    request_.set(http::field::connection, "close");
    request_.body() = node_call_body(call);
    request_.prepare_payload();
  }

  void start() {
    deadline_.expires_after(times_.total);
    deadline_.async_wait([self = shared_from_this()](beast::error_code error) {
      if (!error) self->give_up(fmt::format("no answer within {} ms", self->times_.total.count()));
    });
    asio::co_spawn(stream_.get_executor(), run(shared_from_this()), asio::detached);
  }

  void give_up(const std::string& cause) {
    finish({NodeAnswer::Outcome::unreachable, 0, named(cause), sent_});
  }

 private:
  // `self` keeps the object alive while the coroutine is under way.
  static asio::awaitable<void> run(std::shared_ptr<Exchange> self) {
    try {
      if (!co_await self->connect_with_retries()) co_return;
      co_await self->exchange();
    } catch (const std::exception& failure) {
      self->give_up(failure.what());
    }
  }

  asio::awaitable<bool> connect_with_retries() {
    const std::chrono::milliseconds waits[] = {times_.first_retry, times_.second_retry};
    for (size_t attempt = 0;; ++attempt) {
      const beast::error_code error = co_await connect();
      if (finished_) co_return false;
      if (!error) co_return true;
      if (attempt == std::size(waits)) {
        give_up(error == beast::error::timeout
                    ? fmt::format("no connection within {} ms", times_.connect.count())
                    : error.message());
        co_return false;
      }
      pause_.expires_after(waits[attempt]);
      beast::error_code ignored;
      co_await pause_.async_wait(asio::redirect_error(use_awaitable, ignored));
    }
  }

  asio::awaitable<beast::error_code> connect() {
    beast::error_code error;
    const auto found = co_await resolver_.async_resolve(url_.host, url_.port,
                                                        asio::redirect_error(use_awaitable, error));
    if (error || finished_) co_return error;
    stream_.expires_after(times_.connect);
    co_await stream_.async_connect(found, asio::redirect_error(use_awaitable, error));
    co_return error;
  }

  asio::awaitable<void> exchange() {
    stream_.expires_never();  // the deadline watches from here on
    sent_ = true;
    co_await http::async_write(stream_, request_, use_awaitable);
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(kAnswerBytesMax);
    co_await http::async_read_header(stream_, buffer, parser, use_awaitable);
    const auto status = static_cast<int>(parser.get().result_int());
    // The status decides; a broken body changes nothing.
    stream_.expires_after(kBodyPatience);
    beast::error_code ignored;
    co_await http::async_read(stream_, buffer, parser,
                              asio::redirect_error(use_awaitable, ignored));
    const bool accepted = status == 200 || status == 202;
    finish({accepted ? NodeAnswer::Outcome::accepted : NodeAnswer::Outcome::refused, status,
            std::move(parser.get().body()), accepted});
  }

  std::string named(const std::string& cause) const {
    return fmt::format("POST http://{}{}/api/v1/backup/start: {}", url_.authority(), url_.base_path(),
                       cause);
  }

  void finish(NodeAnswer answer) {
    if (std::exchange(finished_, true)) return;
    redact(answer.text, secret_);
    deadline_.cancel();
    pause_.cancel();
    resolver_.cancel();
    stream_.close();
    done_(std::move(answer));
  }

  const io::HttpUrl& url_;
  const NodeTimes& times_;
  std::string secret_;
  http::request<http::string_body> request_;
  tcp::resolver resolver_;
  beast::tcp_stream stream_;
  asio::steady_timer pause_, deadline_;
  Done done_;
  bool sent_ = false;
  bool finished_ = false;
};

class BeastNodeClient final : public NodeClient {
 public:
  BeastNodeClient(io::Executor& executor, io::HttpUrl url, NodeTimes times)
      : executor_(executor),
        url_(std::move(url)),
        times_(times),
        thread_([this] { loop_.run(); }) {}

  ~BeastNodeClient() override {
    stop();
    at_work_.reset();
    loop_.stop();
    thread_.join();
  }

  io::Task<NodeAnswer> call(NodeCall call) override {
    Waiting waiting{*this, std::move(call)};
    co_await waiting;
    co_return std::move(waiting.answer);
  }

  void stop() override {
    asio::post(loop_, [this] {
      stopped_ = true;
      const auto ending = std::exchange(under_way_, {});
      for (const auto& exchange : ending) exchange->give_up("varve is shutting down");
    });
  }

 private:
  struct Waiting {
    BeastNodeClient& client;
    NodeCall call;
    NodeAnswer answer{};
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) {
      asio::post(client.loop_, [this, caller] { client.begin(*this, caller); });
    }
    void await_resume() const noexcept {}
  };

  /// On the client's thread. `waiting` lies in the caller's frame, which stays until it is resumed.
  void begin(Waiting& waiting, std::coroutine_handle<> caller) {
    // The set holds the exchange, so that it outlives an answer given from inside stop().
    auto entry = std::make_shared<std::weak_ptr<Exchange>>();
    auto exchange = std::make_shared<Exchange>(
        loop_, url_, times_, std::move(waiting.call),
        [this, entry, &waiting, caller](NodeAnswer answer) {
          if (const auto ended = entry->lock()) under_way_.erase(ended);
          executor_.post([&waiting, caller, answer = std::move(answer)]() mutable {
            waiting.answer = std::move(answer);
            caller.resume();
          });
        });
    *entry = exchange;
    if (stopped_) return exchange->give_up("varve is shutting down");
    under_way_.insert(exchange);
    exchange->start();
  }

  io::Executor& executor_;
  const io::HttpUrl url_;
  const NodeTimes times_;
  asio::io_context loop_{1};
  asio::executor_work_guard<asio::io_context::executor_type> at_work_ =
      asio::make_work_guard(loop_);
  std::set<std::shared_ptr<Exchange>> under_way_;  // of the client's thread
  bool stopped_ = false;                           // of the client's thread
  std::thread thread_;
};

}  // namespace

std::unique_ptr<NodeClient> make_node_client(io::Executor& executor, io::HttpUrl url,
                                             NodeTimes times) {
  return std::make_unique<BeastNodeClient>(executor, std::move(url), times);
}

}  // namespace engine
