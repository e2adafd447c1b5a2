// SPDX-License-Identifier: Apache-2.0
#include "api/http_stream.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/write.hpp>

namespace api {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::redirect_error;
using asio::use_awaitable;

}  // namespace

HttpStream::Awaitable<HttpStream::Error> HttpStream::begin_tls(std::shared_ptr<TlsContext> context,
                                                               Buffer& begun) {
  context_ = std::move(context);
  tls_.emplace(plain_, *context_);
  Error error;
  const size_t taken = co_await tls_->async_handshake(asio::ssl::stream_base::server, begun.data(),
                                                      redirect_error(use_awaitable, error));
  begun.consume(taken);
  co_return error;
}

std::optional<std::string> HttpStream::admitted_peer(const HttpTls& tls) {
  return api::admitted_peer(tls_->native_handle(), tls);
}

HttpStream::Awaitable<HttpStream::Error> HttpStream::read_some(Buffer& into, size_t bytes_max) {
  Error error;
  const auto room = into.prepare(bytes_max);
  auto done = redirect_error(use_awaitable, error);
  size_t count = 0;
  if (tls_) {
    count = co_await tls_->async_read_some(room, done);
  } else {
    count = co_await plain_.async_read_some(room, done);
  }
  into.commit(count);
  co_return error;
}

HttpStream::Awaitable<HttpStream::Error> HttpStream::read_header(Buffer& buffer, Parser& parser) {
  Error error;
  auto done = redirect_error(use_awaitable, error);
  if (tls_) {
    co_await http::async_read_header(*tls_, buffer, parser, done);
  } else {
    co_await http::async_read_header(plain_, buffer, parser, done);
  }
  co_return error;
}

HttpStream::Awaitable<HttpStream::Error> HttpStream::read_rest(Buffer& buffer, Parser& parser) {
  Error error;
  auto done = redirect_error(use_awaitable, error);
  if (tls_) {
    co_await http::async_read(*tls_, buffer, parser, done);
  } else {
    co_await http::async_read(plain_, buffer, parser, done);
  }
  co_return error;
}

HttpStream::Awaitable<HttpStream::Error> HttpStream::write(std::string_view text) {
  Error error;
  auto done = redirect_error(use_awaitable, error);
  const asio::const_buffer bytes(text.data(), text.size());
  if (tls_) {
    co_await asio::async_write(*tls_, bytes, done);
  } else {
    co_await asio::async_write(plain_, bytes, done);
  }
  co_return error;
}

HttpStream::Awaitable<HttpStream::Error> HttpStream::write(Message& message, bool with_body) {
  Error error;
  auto done = redirect_error(use_awaitable, error);
  http::response_serializer<http::string_body> serializer(message);
  if (!with_body) {
    serializer.split(true);
    if (tls_) {
      co_await http::async_write_header(*tls_, serializer, done);
    } else {
      co_await http::async_write_header(plain_, serializer, done);
    }
  } else if (tls_) {
    co_await http::async_write(*tls_, serializer, done);
  } else {
    co_await http::async_write(plain_, serializer, done);
  }
  co_return error;
}

HttpStream::Awaitable<void> HttpStream::finish() {
  Error error;
  if (tls_) {
    // It waits for the peer's own end, which some never send.
    plain_.expires_after(std::chrono::seconds(2));
    co_await tls_->async_shutdown(redirect_error(use_awaitable, error));
  }
  plain_.socket().shutdown(Protocol::socket::shutdown_send, error);
}

}  // namespace api
