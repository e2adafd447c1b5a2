// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api/http_stream.h"

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>

#include "api/event_feed.h"
#include "api/handler_pool.h"
#include "api/http_server.h"

namespace api {

/// What the connections of a server share. Belongs to the network thread.
struct HttpRoom {
  HttpRoom(boost::asio::io_context& loop_of_server, const Api& api_of_server,
           const HttpServerOptions& options_of_server);

  boost::asio::io_context& loop;
  const Api& api;
  const HttpServerOptions& options;
  std::array<std::optional<HandlerPool>, kWaitKinds> handlers;  // by WaitsFor
  std::optional<EventFeed> feed;
  std::shared_ptr<TlsContext> tls_context;  // of new connections; null when TLS is off
  HttpTls tls;
  uint64_t next_turn = 0;
  bool stopping = false;
};

/// Both ends of a connection, as far as the API asks for them.
struct HttpEnds {
  bool peer_is_loopback = true;
  bool is_unix = true;
  std::string local_address, peer_address;  // "" of a Unix socket
  std::optional<uint32_t> peer_uid;         // of a Unix socket
};

/// One connection, from its first byte to its end: requests one after the other, or one that events
/// follow. Belongs to the network thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpRoom& room, HttpStream::Protocol::socket socket, HttpEnds ends)
      : room_(room), stream_(std::move(socket)), ends_(std::move(ends)), turn_(room.next_turn++) {}

  boost::asio::awaitable<void> serve();

  /// Ends whatever is under way.
  void close() { stream_.close(); }
  /// The same, and no answer is waited for.
  void abandon();
  bool is_idle() const { return idle_; }      ///< between two requests
  bool is_asking() const { return asking_; }  ///< a whole request has come, its answer has not left
  uint64_t turn() const { return turn_; }     ///< the lower, the longer nothing was asked

  bool giving_way = false;  ///< to a newer connection

 private:
  struct Pending;

  boost::asio::awaitable<bool> wait_for_bytes();
  /// False when the connection ends: a bad handshake, or plain text where TLS is required.
  boost::asio::awaitable<bool> begin();
  /// One request and its answer; false when the connection ends after it.
  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<HttpStream::Error> receive_header(HttpStream::Parser& parser);
  boost::asio::awaitable<HttpStream::Error> receive_body(HttpStream::Parser& parser);
  Request request_of(const HttpStream::Parser& parser) const;
  boost::asio::awaitable<void> refuse(const HttpStream::Parser& parser, HttpStream::Error error);
  boost::asio::awaitable<void> refuse_with(Problem problem, std::string target);
  boost::asio::awaitable<Response> answer(Request request, const Route* route);
  HttpStream::Message message_of(Response response) const;
  boost::asio::awaitable<bool> send(Response response, bool keep_alive, bool has_body);
  boost::asio::awaitable<void> send_events(Request request, Response response);
  boost::asio::awaitable<void> watch(EventFeed::ListenerPtr listener);
  boost::asio::awaitable<void> drain();

  HttpRoom& room_;
  HttpStream stream_;
  const HttpEnds ends_;
  HttpStream::Buffer buffer_;
  std::string peer_certificate_;
  bool idle_ = true, asking_ = false;
  uint64_t turn_;
  std::shared_ptr<Pending> pending_;  // while a handler works
};

}  // namespace api
