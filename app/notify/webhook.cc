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

using Deadline = std::chrono::steady_clock::time_point;
using Endpoints = std::vector<tcp::endpoint>;

constexpr auto kTryPatience = std::chrono::seconds(10);
constexpr uint64_t kAnswerBytesMax = 1 << 20;  // read, and not looked at

std::string no_answer() { return fmt::format("no answer within {} s", kTryPatience.count()); }

/// One POST: a chain of asynchronous calls, because only these know time-outs.
class Post {
 public:
  Post(asio::io_context& loop, asio::ssl::context& tls, const io::HttpUrl& url,
       const std::string& user_agent, const std::string& json)
      : url_(url), stream_(loop, tls), deadline_(loop) {
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

  /// To the first of `hosts` that takes the connection.
  void start(const Endpoints& hosts, Deadline until) {
    deadline_.expires_at(until);
    deadline_.async_wait([this](beast::error_code error) {
      if (error) return;
      end("timeout", beast::error::timeout);
    });
    plain().async_connect(hosts, [this](beast::error_code failed, const tcp::endpoint&) {
      if (failed || has_ended_) return end("connect", failed);
      url_.tls ? shake_hands() : send(plain());
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
      cause_ = no_answer();
    } else if (error) {
      cause_ = fmt::format("{}: {}", step, error.message());
    }
    deadline_.cancel();
    plain().close();
  }

  const io::HttpUrl& url_;
  http::request<http::string_body> request_;
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
  Webhook(io::HttpUrl url, std::string user_agent, ResolveHost resolve)
      : url_(std::move(url)),
        user_agent_(std::move(user_agent)),
        lookup_(url_.host, std::move(resolve)) {
    tls_.set_default_verify_paths();
  }

  void deliver(const Message& message) override {
    const Deadline until = std::chrono::steady_clock::now() + kTryPatience;
    const Endpoints hosts = look_up(until);
    asio::io_context loop{1};
    Post post(loop, tls_, url_, user_agent_, message.json);
    post.start(hosts, until);
    if (begin(loop)) loop.run();
    const bool is_interrupted = !finish();
    if (post.status() == 0) {
      throw is_interrupted ? interrupted() : failure(post.cause(), !post.is_final());
    }
    if (post.status() / 100 == 2) return;
    const bool may_help = post.status() >= 500 || post.status() == 408 || post.status() == 429;
    throw failure(fmt::format("answered with status {}", post.status()), may_help);
  }

  void interrupt() noexcept override {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (under_way_ != nullptr) under_way_->stop();
    lookup_.interrupt();
  }

 private:
  /// Not by Asio, whose loop ends when the system's resolver does. Throws DeliveryFailure.
  Endpoints look_up(Deadline until) {
    std::vector<std::string> addresses;
    try {
      addresses = lookup_.addresses(until);
    } catch (const std::exception& cause) {
      throw failure(fmt::format("resolve: {}", cause.what()), true);
    }
    const std::lock_guard lock(mutex_);
    if (interrupted_) throw interrupted();
    if (addresses.empty()) throw failure(no_answer(), true);
    Endpoints hosts;
    for (const std::string& address : addresses) {
      hosts.emplace_back(asio::ip::make_address(address), port_);
    }
    return hosts;
  }
  DeliveryFailure interrupted() const { return failure("varve stops", false); }
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
  const uint16_t port_ = static_cast<uint16_t>(std::stoul(url_.port));
  HostLookup lookup_;
  asio::ssl::context tls_{asio::ssl::context::tls_client};
  std::mutex mutex_;
  asio::io_context* under_way_ = nullptr;
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<DeliveryWay> make_webhook(const std::string& url, const std::string& user_agent,
                                          ResolveHost resolve) {
  return std::make_unique<Webhook>(parse_webhook_url(url), user_agent, std::move(resolve));
}

}  // namespace app
