// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api/tls_context.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string_view>

namespace api {

/// The bytes of one HTTP connection, inside TLS or as they are.
///
/// One read and one write may be under way. Times out by expires_after(), which counts for what is
/// begun later. Belongs to the network thread.
class HttpStream {
 public:
  using Protocol = boost::asio::generic::stream_protocol;  // TCP and Unix sockets alike
  using Error = boost::beast::error_code;
  using Buffer = boost::beast::flat_buffer;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Message = boost::beast::http::response<boost::beast::http::string_body>;
  template <typename T>
  using Awaitable = boost::asio::awaitable<T>;

  explicit HttpStream(Protocol::socket socket) : plain_(std::move(socket)) {}

  /// The server's part of a handshake that begins with the bytes in `begun`.
  Awaitable<Error> begin_tls(std::shared_ptr<TlsContext> context, Buffer& begun);
  /// The common name that the peer has proved, "" for none; nothing when it may not come in.
  std::optional<std::string> admitted_peer(const HttpTls& tls);
  bool is_tls() const { return tls_.has_value(); }

  Awaitable<Error> read_some(Buffer& into, size_t bytes_max);
  Awaitable<Error> read_header(Buffer& buffer, Parser& parser);
  Awaitable<Error> read_rest(Buffer& buffer, Parser& parser);
  Awaitable<Error> write(std::string_view text);
  /// Its head only where `with_body` is false, with the length that the body would have.
  Awaitable<Error> write(Message& message, bool with_body);
  /// Says that nothing more comes.
  Awaitable<void> finish();

  void expires_after(std::chrono::milliseconds time) { plain_.expires_after(time); }
  void expires_never() { plain_.expires_never(); }
  /// Ends whatever is under way with an error.
  void close() { plain_.close(); }

 private:
  using Plain = boost::beast::basic_stream<Protocol>;

  Plain plain_;
  std::shared_ptr<TlsContext> context_;  // before what stands on it
  std::optional<boost::asio::ssl::stream<Plain&>> tls_;
};

}  // namespace api
