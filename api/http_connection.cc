// SPDX-License-Identifier: Apache-2.0
#include "api/http_connection.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>

#include "api/audit.h"
#include "api/fields.h"

namespace api {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::redirect_error;
using asio::use_awaitable;

constexpr size_t kReadBytes = 4096;
// What a refused sender may still send, so that it reads the refusal before the connection ends.
constexpr auto kDrainTime = std::chrono::seconds(2);
constexpr size_t kDrainBytes = 8 << 20;
// Proxies and browsers take a connection without bytes for dead after a minute or so.
constexpr auto kSilenceMax = std::chrono::seconds(15);
constexpr char kTlsHandshake = 0x16;  // the first byte of a TLS connection, and of no HTTP method

}  // namespace

HttpRoom::HttpRoom(asio::io_context& loop_of_server, const Api& api_of_server,
                   const HttpServerOptions& options_of_server)
    : loop(loop_of_server), api(api_of_server), options(options_of_server) {
  for (auto& pool : handlers) pool.emplace(options.handler_threads_max);
  feed.emplace(loop, api, *handlers[static_cast<size_t>(WaitsFor::engine)],
               options.event_streams_max);
}

/// A request that a handler thread works on while the network thread waits for it.
struct HttpConnection::Pending {
  explicit Pending(asio::io_context& loop) : due(loop) {}
  asio::steady_timer due;  // of the network thread, like the answer
  std::optional<Response> answer;
  std::atomic<bool> abandoned{false};  // not worth starting any more
};

void HttpConnection::abandon() {
  stream_.close();
  if (pending_) pending_->due.cancel();
}

asio::awaitable<void> HttpConnection::serve() {
  stream_.expires_after(room_.options.request_timeout);  // a new connection shall not idle
  bool goes_on = co_await wait_for_bytes();
  if (goes_on) goes_on = co_await begin();
  while (goes_on && !room_.stopping) {
    goes_on = co_await wait_for_bytes();
    if (goes_on) goes_on = co_await serve_one();
    stream_.expires_after(room_.options.idle_timeout);
  }
}

asio::awaitable<bool> HttpConnection::wait_for_bytes() {
  if (buffer_.size() > 0) co_return true;  // a pipelined request
  idle_ = true;
  const HttpStream::Error error = co_await stream_.read_some(buffer_, kReadBytes);
  idle_ = false;
  co_return !error;
}

asio::awaitable<bool> HttpConnection::begin() {
  const HttpTls& tls = room_.tls;
  const bool is_handshake = *static_cast<const char*>(buffer_.data().data()) == kTlsHandshake;
  if (!room_.tls_context || !is_handshake) {
    const bool is_far = !ends_.peer_is_loopback && !tls.plain_beyond_loopback;
    const bool must =
        room_.tls_context && !ends_.is_unix && (is_far || tls.mode == HttpTlsMode::require);
    if (must) co_await refuse_with(tls_required(), "/");
    co_return !must;
  }
  stream_.expires_after(room_.options.request_timeout);
  const HttpStream::Error error = co_await stream_.begin_tls(room_.tls_context, buffer_);
  if (error) co_return false;
  auto peer = stream_.admitted_peer(tls);
  if (!peer) co_await refuse_with(certificate_not_allowed(), "/");
  if (!peer) co_return false;
  peer_certificate_ = std::move(*peer);
  co_return true;
}

asio::awaitable<bool> HttpConnection::serve_one() {
  HttpStream::Parser parser;
  HttpStream::Error error = co_await receive_header(parser);
  // A stranger's body takes no memory; what was refused by its header stays so.
  const bool leaves_body =
      !error && !parser.is_done() && room_.api.refusal_of(request_of(parser)).has_value();
  if (!error && !leaves_body) error = co_await receive_body(parser);
  if (error) {
    co_await refuse(parser, error);
    co_return false;
  }
  Request request = request_of(parser);
  const Route* const route = room_.api.route_of(request);
  const bool has_body = request.method != "HEAD";
  const bool wants_events = route && route->goes_on && has_body;
  stream_.expires_never();
  asking_ = true;
  Response response = co_await answer(request, route);
  bool goes_on = false;
  if (wants_events && response.status == 200 &&
      room_.feed->is_full()) {  // others have joined since
    response = room_.api.problem_response(too_many_listeners(), request.target);
  }
  if (wants_events && response.status == 200) {
    co_await send_events(std::move(request), std::move(response));
  } else {
    const bool keep_alive = parser.keep_alive() && !room_.stopping && !leaves_body;
    goes_on = co_await send(std::move(response), keep_alive, has_body);
    if (leaves_body) co_await drain();
  }
  asking_ = false;
  turn_ = room_.next_turn++;
  co_return goes_on;
}

Request HttpConnection::request_of(const HttpStream::Parser& parser) const {
  const auto& message = parser.get();
  // Who comes through a proxy of this host is not of this host.
  const bool is_forwarded = message.count("Forwarded") > 0 ||
                            message.count("X-Forwarded-For") > 0 ||
                            message.count("X-Real-IP") > 0 || message.count(http::field::via) > 0;
  return {.method = std::string(message.method_string()),
          .target = std::string(message.target()),
          .authorization = std::string(message[http::field::authorization]),
          .origin = std::string(message[http::field::origin]),
          .body = message.body(),
          .peer_is_loopback = ends_.peer_is_loopback && !is_forwarded,
          .host = std::string(message[http::field::host]),
          .content_type = std::string(message[http::field::content_type]),
          .local_address = ends_.local_address,
          .if_none_match = std::string(message[http::field::if_none_match]),
          .peer_address = ends_.peer_address,
          .peer_uid = ends_.peer_uid,
          .peer_certificate = peer_certificate_};
}

asio::awaitable<HttpStream::Error> HttpConnection::receive_header(HttpStream::Parser& parser) {
  parser.body_limit(room_.options.body_bytes_max);
  parser.header_limit(room_.options.header_bytes_max);
  stream_.expires_after(room_.options.request_timeout);
  const HttpStream::Error error = co_await stream_.read_header(buffer_, parser);
  co_return error;
}

asio::awaitable<HttpStream::Error> HttpConnection::receive_body(HttpStream::Parser& parser) {
  HttpStream::Error error;
  if (boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    error = co_await stream_.write("HTTP/1.1 100 Continue\r\n\r\n");
    if (error) co_return error;
  }
  error = co_await stream_.read_rest(buffer_, parser);
  co_return error;
}

// What cannot be parsed is answered, as far as there is anybody to answer to.
asio::awaitable<void> HttpConnection::refuse(const HttpStream::Parser& parser,
                                             HttpStream::Error error) {
  const bool is_syntax = error.category() == make_error_code(http::error::bad_target).category();
  if (!is_syntax || error == http::error::end_of_stream || error == http::error::partial_message) {
    co_return;
  }
  Problem problem = malformed_request(error.message());
  if (error == http::error::body_limit) problem = body_too_large();
  if (error == http::error::header_limit) {
    problem = {431, "", "request header too large", "", "", ""};
  }
  std::string target(parser.get().target());
  if (target.empty()) target = "/";
  co_await refuse_with(std::move(problem), std::move(target));
}

asio::awaitable<void> HttpConnection::refuse_with(Problem problem, std::string target) {
  Response response = room_.api.problem_response(problem, target);
  co_await send(std::move(response), false, true);
  co_await drain();
}

asio::awaitable<Response> HttpConnection::answer(Request request, const Route* route) {
  // A refusal of the router needs no engine either; but a line of the audit log waits for a disk.
  const bool is_instant = !route || route->instant;
  if (is_instant && only_reads(request)) co_return room_.api.handle(request);
  std::string target = request.target;
  if (route && route->goes_on && room_.feed->is_full()) {
    co_return room_.api.problem_response(too_many_listeners(), target);
  }
  const auto pending = std::make_shared<Pending>(room_.loop);
  pending_ = pending;
  const WaitsFor waits_for = route ? route->waits_for : WaitsFor::engine;
  const bool begun = room_.handlers[static_cast<size_t>(waits_for)]->post(
      [&room = room_, pending, request = std::move(request)] {
        if (pending->abandoned) return;
        Response response = room.api.handle(request);
        asio::post(room.loop, [pending, response = std::move(response)]() mutable {
          pending->answer = std::move(response);
          pending->due.cancel();
        });
      });
  if (!begun) {
    pending_.reset();
    co_return room_.api.problem_response(out_of_threads(), target);
  }
  if (route && route->unhurried) {
    pending->due.expires_at(asio::steady_timer::time_point::max());
  } else {
    pending->due.expires_after(room_.options.answer_timeout);
  }
  HttpStream::Error woken;
  co_await pending->due.async_wait(redirect_error(use_awaitable, woken));
  pending_.reset();
  if (pending->answer) co_return std::move(*pending->answer);
  pending->abandoned = true;
  co_return room_.api.problem_response(answer_is_late(), target);
}

HttpStream::Message HttpConnection::message_of(Response response) const {
  HttpStream::Message message;
  message.version(11);
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::server, "varve");
  message.set(http::field::date, http_date(room_.api.now()));
  message.set("X-Content-Type-Options", "nosniff");
  if (!response.content_type.empty()) {
    message.set(http::field::content_type, response.content_type);
  }
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.body() = std::move(response.body);
  return message;
}

asio::awaitable<bool> HttpConnection::send(Response response, bool keep_alive, bool has_body) {
  const bool never_has_one = response.status == 204 || response.status == 304;
  HttpStream::Message message = message_of(std::move(response));
  message.keep_alive(keep_alive);
  message.prepare_payload();
  if (never_has_one) message.erase(http::field::content_length);
  stream_.expires_after(room_.options.write_timeout);
  const HttpStream::Error error = co_await stream_.write(message, has_body && !never_has_one);
  if (!keep_alive && !error) co_await stream_.finish();
  co_return keep_alive && !error;
}

asio::awaitable<void> HttpConnection::send_events(Request request, Response response) {
  std::string first = response.body;
  HttpStream::Message message = message_of(std::move(response));
  message.set(http::field::cache_control, "no-store");
  message.set("X-Accel-Buffering", "no");  // nginx would hold events back
  message.keep_alive(false);
  stream_.expires_never();  // for the reads of watch()
  const auto listener = room_.feed->join(std::move(request), first);
  asio::co_spawn(room_.loop, watch(listener), asio::detached);
  stream_.expires_after(room_.options.event_timeout);
  HttpStream::Error error = co_await stream_.write(message, false);
  if (listener->next.empty()) listener->next = std::move(first);
  while (!error && !listener->is_over) {
    std::string text = std::exchange(listener->next, "");
    if (text.empty()) text = ": still here\n\n";
    stream_.expires_after(room_.options.event_timeout);  // one that does not read is dropped
    error = co_await stream_.write(text);
    if (error || listener->is_over || !listener->next.empty()) continue;
    listener->woken.expires_after(kSilenceMax);
    HttpStream::Error woken;
    co_await listener->woken.async_wait(redirect_error(use_awaitable, woken));
  }
  room_.feed->leave(listener);
  stream_.close();
}

// A listener says nothing more; its end is found here, not with the next event.
asio::awaitable<void> HttpConnection::watch(EventFeed::ListenerPtr listener) {
  const auto self = shared_from_this();
  HttpStream::Buffer nowhere;
  HttpStream::Error error;
  while (!error && !listener->is_over) {
    error = co_await stream_.read_some(nowhere, kReadBytes);
    nowhere.clear();
  }
  listener->is_over = true;
  listener->woken.cancel();
}

asio::awaitable<void> HttpConnection::drain() {
  HttpStream::Buffer nowhere;
  stream_.expires_after(kDrainTime);
  HttpStream::Error error;
  for (size_t drained = 0; drained < kDrainBytes && !error;) {
    error = co_await stream_.read_some(nowhere, 64 << 10);
    drained += nowhere.size();
    nowhere.clear();
  }
}

}  // namespace api
