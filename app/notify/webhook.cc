// SPDX-License-Identifier: Apache-2.0
#if defined(__SANITIZE_THREAD__)
// Asio's fences are not understood by ThreadSanitizer; here they guard nothing that it must see.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <mutex>
#include <utility>

#include "app/notify/delivery.h"
#include "app/notify/options.h"

namespace app {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr auto kTryPatience = std::chrono::seconds(10);
constexpr uint64_t kAnswerBytesMax = 1 << 20;  // read, and not looked at

/// One POST: a chain of asynchronous calls, because only these know time-outs.
class Post {
 public:
  Post(asio::io_context& loop, asio::ssl::context& tls, const io::HttpUrl& url,
       const std::string& user_agent, const std::string& json)
      : url_(url), resolver_(loop), stream_(loop, tls), deadline_(loop) {
    request_.method(http::verb::post);
    request_.target(url.target);
    request_.set(http::field::host, url.authority());
    request_.set(http::field::user_agent, user_agent);
    request_.set(http::field::content_type, "application/json");
    request_.set(http::field::connection, "close");
    request_.body() = json;
    request_.prepare_payload();
    parser_.body_limit(kAnswerBytesMax);
  }

  void start() {
    deadline_.expires_after(kTryPatience);
    deadline_.async_wait([this](beast::error_code error) {
      if (error) return;
      end("timeout", beast::error::timeout);
    });
    resolver_.async_resolve(url_.host, url_.port, [this](beast::error_code error, auto found) {
      if (error || has_ended_) return end("resolve", error);
      plain().async_connect(found, [this](beast::error_code failed, const auto&) {
        if (failed || has_ended_) return end("connect", failed);
        url_.tls ? shake_hands() : send(plain());
      });
    });
  }

  /// The status; 0 when there was none.
  int status() const { return status_; }
  const std::string& cause() const { return cause_; }
  /// A certificate that is not trusted now is not trusted in a second either.
  bool is_final() const { return is_final_; }

 private:
  beast::tcp_stream& plain() { return stream_.next_layer(); }

  void shake_hands() {
    // A name for the server, unless the host is an address.
    beast::error_code is_name;
    asio::ip::make_address(url_.host, is_name);
    if (is_name) ::SSL_set_tlsext_host_name(stream_.native_handle(), url_.host.c_str());
    stream_.set_verify_mode(asio::ssl::verify_peer);
    stream_.set_verify_callback(asio::ssl::host_name_verification(url_.host));
    stream_.async_handshake(asio::ssl::stream_base::client, [this](beast::error_code error) {
      is_final_ = error.category() == asio::error::get_ssl_category();
      if (error || has_ended_) return end("TLS", error);
      send(stream_);
    });
  }

  template <class Stream>
  void send(Stream& stream) {
    http::async_write(stream, request_, [this, &stream](beast::error_code error, size_t) {
      if (error || has_ended_) return end("write", error);
      http::async_read_header(stream, buffer_, parser_, [this](beast::error_code failed, size_t) {
        if (failed) return end("read", failed);
        status_ = static_cast<int>(parser_.get().result_int());
        end("", {});  // the status decides
      });
    });
  }

  void end(std::string_view step, beast::error_code error) {
    if (std::exchange(has_ended_, true)) return;
    if (error == beast::error::timeout) {
      cause_ = fmt::format("no answer within {} s", kTryPatience.count());
    } else if (error) {
      cause_ = fmt::format("{}: {}", step, error.message());
    }
    deadline_.cancel();
    resolver_.cancel();
    plain().close();
  }

  const io::HttpUrl& url_;
  http::request<http::string_body> request_;
  tcp::resolver resolver_;
  beast::ssl_stream<beast::tcp_stream> stream_;
  asio::steady_timer deadline_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  std::string cause_;
  int status_ = 0;
  bool has_ended_ = false, is_final_ = false;
};

class Webhook final : public DeliveryWay {
 public:
  Webhook(io::HttpUrl url, std::string user_agent)
      : url_(std::move(url)), user_agent_(std::move(user_agent)) {
    tls_.set_default_verify_paths();
  }

  void deliver(const Message& message) override {
    asio::io_context loop{1};
    Post post(loop, tls_, url_, user_agent_, message.json);
    post.start();
    if (begin(loop)) loop.run();
    const bool is_interrupted = !finish();
    if (post.status() == 0) {
      throw is_interrupted ? failure("varve stops", false)
                           : failure(post.cause(), !post.is_final());
    }
    if (post.status() / 100 == 2) return;
    const bool may_help = post.status() >= 500 || post.status() == 408 || post.status() == 429;
    throw failure(fmt::format("answered with status {}", post.status()), may_help);
  }

  void interrupt() noexcept override {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (under_way_ != nullptr) under_way_->stop();
  }

 private:
  DeliveryFailure failure(const std::string& cause, bool may_help_again) const {
    return {fmt::format("POST {}: {}", shown_url(url_), cause), may_help_again};
  }
  bool begin(asio::io_context& loop) {
    const std::lock_guard lock(mutex_);
    under_way_ = &loop;
    return !interrupted_;
  }
  bool finish() {
    const std::lock_guard lock(mutex_);
    under_way_ = nullptr;
    return !interrupted_;
  }

  const io::HttpUrl url_;
  const std::string user_agent_;
  asio::ssl::context tls_{asio::ssl::context::tls_client};
  std::mutex mutex_;
  asio::io_context* under_way_ = nullptr;
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<DeliveryWay> make_webhook(const std::string& url, const std::string& user_agent) {
  return std::make_unique<Webhook>(parse_webhook_url(url), user_agent);
}

}  // namespace app
