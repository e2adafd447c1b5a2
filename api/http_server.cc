#if defined(__SANITIZE_THREAD__)
// Asio's fences are not understood by ThreadSanitizer; here they guard nothing that it must see.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include "api/http_server.h"

#include <fcntl.h>

#include <array>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "api/handler_pool.h"
#include "io/failure.h"
#include "io/listening_socket.h"

namespace api {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::redirect_error;
using asio::use_awaitable;
using asio::ip::tcp;
using asio::local::stream_protocol;
using beast::error_code;

using Protocol = asio::generic::stream_protocol;  // TCP and Unix sockets alike
using Stream = beast::basic_stream<Protocol>;
using Parser = http::request_parser<http::string_body>;

constexpr size_t kReadBytes = 4096;
constexpr auto kWriteTimeout = std::chrono::seconds(30);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // while out of file descriptors
// What a refused sender may still send, so that it reads the refusal before the connection ends.
constexpr auto kDrainTime = std::chrono::seconds(2);
constexpr size_t kDrainBytes = 8 << 20;

/// An IPv4 peer of an IPv6 socket has its IPv4 address.
asio::ip::address address_of(const tcp::endpoint& endpoint) {
  const auto address = endpoint.address();
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

/// A request that a handler thread works on while the network thread waits for it.
struct Pending {
  explicit Pending(asio::io_context& loop) : due(loop) {}
  asio::steady_timer due;  // of the network thread, like the answer
  std::optional<Response> answer;
  std::atomic<bool> abandoned{false};  // not worth starting any more
};

/// Both ends of a connection, as far as the API asks for them.
struct Ends {
  bool peer_is_loopback = true;
  std::string local_address;  // "" of a Unix socket
};

struct Session {
  Session(Protocol::socket socket, Ends of) : stream(std::move(socket)), ends(std::move(of)) {}
  Stream stream;
  const Ends ends;
  bool idle = true;                  // between two requests
  bool asking = false;               // a whole request has come and its answer has not left
  bool giving_way = false;           // to a newer connection
  uint64_t turn = 0;                 // the lower, the longer nothing was asked
  std::shared_ptr<Pending> pending;  // while a handler works
};
using SessionPtr = std::shared_ptr<Session>;

Request request_of(const Parser& parser, const Ends& ends) {
  const auto& message = parser.get();
  return {std::string(message.method_string()),
          std::string(message.target()),
          std::string(message[http::field::authorization]),
          std::string(message[http::field::origin]),
          message.body(),
          ends.peer_is_loopback,
          std::string(message[http::field::host]),
          std::string(message[http::field::content_type]),
          ends.local_address};
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const Api& api, HttpServerOptions options);
  ~Impl() { stop(); }
  void stop();
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  template <class Acceptor>
  asio::awaitable<void> accept(Acceptor& acceptor);
  bool make_room();
  void begin(Protocol::socket socket, Ends ends);
  asio::awaitable<void> serve(SessionPtr session);
  /// One request and its answer; false when the connection ends after it.
  asio::awaitable<bool> serve_one(Session& session, beast::flat_buffer& buffer);
  asio::awaitable<bool> wait_for_bytes(Session& session, beast::flat_buffer& buffer);
  asio::awaitable<error_code> receive(Session& session, beast::flat_buffer& buffer, Parser& parser);
  asio::awaitable<void> refuse(Session& session, const Parser& parser, error_code error);
  asio::awaitable<Response> answer(Session& session, Request request, const Route* route);
  asio::awaitable<bool> send(Session& session, Response response, bool keep_alive, bool has_body,
                             bool unhurried);
  asio::awaitable<void> drain(Session& session);
  void listen(io::ListeningSocket socket);
  void begin_stop();
  void end_if_done();

  const Api& api_;
  const HttpServerOptions options_;
  asio::io_context loop_{1};
  asio::executor_work_guard<asio::io_context::executor_type> at_work_ = make_work_guard(loop_);
  asio::steady_timer grace_{loop_};
  std::vector<tcp::acceptor> acceptors_;
  std::vector<stream_protocol::acceptor> unix_acceptors_;
  std::vector<io::ListeningSocket> sockets_;  // what the acceptors have duplicates of
  std::vector<std::string> addresses_;
  std::set<SessionPtr> sessions_;  // of the network thread, like all below
  size_t leaving_ = 0;             // of sessions_, those that give way
  uint64_t next_turn_ = 0;
  bool stopping_ = false;
  std::array<std::optional<HandlerPool>, kWaitKinds> handlers_;  // by WaitsFor
  std::thread thread_;
};

HttpServer::Impl::Impl(const Api& api, HttpServerOptions options)
    : api_(api), options_(std::move(options)) {
  for (const std::string& address : options_.addresses) {
    listen(io::ListeningSocket::tcp(io::parse_host_port(address)));
  }
  for (const int fd : options_.adopted) listen(io::ListeningSocket::adopt(io::OwnedFd(fd)));
  if (!options_.unix_socket.empty()) {
    listen(io::ListeningSocket::unix_socket(options_.unix_socket));
  }
  for (auto& acceptor : acceptors_) asio::co_spawn(loop_, accept(acceptor), asio::detached);
  for (auto& acceptor : unix_acceptors_) asio::co_spawn(loop_, accept(acceptor), asio::detached);
  for (auto& handlers : handlers_) handlers.emplace(options_.handler_threads_max);
  thread_ = std::thread([this] { loop_.run(); });
}

void HttpServer::Impl::listen(io::ListeningSocket socket) {
  const int fd = ::fcntl(socket.descriptor(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) throw io::failure("listen on", socket.address(), errno);
  if (socket.is_unix()) {
    unix_acceptors_.emplace_back(loop_, stream_protocol(), fd);
  } else {
    acceptors_.emplace_back(loop_, socket.address().starts_with('[') ? tcp::v6() : tcp::v4(), fd);
  }
  addresses_.push_back((socket.is_unix() ? "unix:" : "") + socket.address());
  sockets_.push_back(std::move(socket));
}

void HttpServer::Impl::stop() {
  if (!thread_.joinable()) return;
  asio::post(loop_, [this] { begin_stop(); });
  thread_.join();
  for (auto& handlers : handlers_) handlers.reset();
}

void HttpServer::Impl::begin_stop() {
  stopping_ = true;
  sockets_.clear();  // the file of a Unix socket goes before it stops listening
  for (auto& acceptor : acceptors_) acceptor.close();
  for (auto& acceptor : unix_acceptors_) acceptor.close();
  for (const SessionPtr& session : sessions_) {
    if (session->idle) session->stream.close();
  }
  grace_.expires_after(options_.stop_grace);
  grace_.async_wait([this](error_code error) {
    if (error) return;
    for (const SessionPtr& session : sessions_) {
      session->stream.close();
      if (session->pending) session->pending->due.cancel();
    }
  });
  end_if_done();
}

void HttpServer::Impl::end_if_done() {
  if (!stopping_ || !sessions_.empty()) return;
  grace_.cancel();
  at_work_.reset();
}

template <class Acceptor>
asio::awaitable<void> HttpServer::Impl::accept(Acceptor& acceptor) {
  asio::steady_timer pause(loop_);
  while (!stopping_) {
    error_code error;
    typename Acceptor::protocol_type::endpoint peer;
    auto socket = co_await acceptor.async_accept(peer, redirect_error(use_awaitable, error));
    if (stopping_ || error == asio::error::operation_aborted) co_return;
    if (error) {
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(redirect_error(use_awaitable, error));
      continue;
    }
    Ends ends;
    if constexpr (std::is_same_v<Acceptor, tcp::acceptor>) {
      socket.set_option(tcp::no_delay(true), error);
      socket.set_option(asio::socket_base::keep_alive(true), error);
      ends = {address_of(peer).is_loopback(), address_of(socket.local_endpoint(error)).to_string()};
    }
    begin(Protocol::socket(std::move(socket)), std::move(ends));
  }
}

/// Closes the connection that has asked nothing for the longest time; false when all are asking.
bool HttpServer::Impl::make_room() {
  Session* oldest = nullptr;
  for (const SessionPtr& session : sessions_) {
    if (session->asking || session->giving_way) continue;
    if (oldest == nullptr || session->turn < oldest->turn) oldest = session.get();
  }
  if (oldest == nullptr) return false;
  oldest->giving_way = true;
  ++leaving_;
  oldest->stream.close();
  return true;
}

void HttpServer::Impl::begin(Protocol::socket socket, Ends ends) {
  const bool is_full = sessions_.size() - leaving_ >= options_.connections_max;
  if (is_full && !make_room()) return;  // closes it
  auto session = std::make_shared<Session>(std::move(socket), std::move(ends));
  session->turn = next_turn_++;
  sessions_.insert(session);
  asio::co_spawn(loop_, serve(session), [this, session](std::exception_ptr) {
    session->stream.close();
    sessions_.erase(session);
    if (session->giving_way) --leaving_;
    end_if_done();
  });
}

asio::awaitable<void> HttpServer::Impl::serve(SessionPtr session) {
  beast::flat_buffer buffer;
  session->stream.expires_after(options_.request_timeout);  // a new connection shall not idle
  for (bool goes_on = true; goes_on && !stopping_;) {
    goes_on = co_await wait_for_bytes(*session, buffer);
    if (goes_on) goes_on = co_await serve_one(*session, buffer);
    session->stream.expires_after(options_.idle_timeout);
  }
}

asio::awaitable<bool> HttpServer::Impl::wait_for_bytes(Session& session,
                                                       beast::flat_buffer& buffer) {
  if (buffer.size() > 0) co_return true;  // a pipelined request
  session.idle = true;
  error_code error;
  const auto room = buffer.prepare(kReadBytes);
  const size_t count =
      co_await session.stream.async_read_some(room, redirect_error(use_awaitable, error));
  buffer.commit(count);
  session.idle = false;
  co_return !error;
}

asio::awaitable<bool> HttpServer::Impl::serve_one(Session& session, beast::flat_buffer& buffer) {
  Parser parser;
  const error_code error = co_await receive(session, buffer, parser);
  if (error) {
    co_await refuse(session, parser, error);
    co_return false;
  }
  Request request = request_of(parser, session.ends);
  const Route* const route = api_.route_of(request);
  const bool has_body = request.method != "HEAD";
  const bool unhurried = route && route->unhurried;
  session.stream.expires_never();
  session.asking = true;
  Response response = co_await answer(session, std::move(request), route);
  const bool keep_alive = parser.keep_alive() && !stopping_;
  const bool goes_on = co_await send(session, std::move(response), keep_alive, has_body, unhurried);
  session.asking = false;
  session.turn = next_turn_++;
  co_return goes_on;
}

asio::awaitable<error_code> HttpServer::Impl::receive(Session& session, beast::flat_buffer& buffer,
                                                      Parser& parser) {
  parser.body_limit(options_.body_bytes_max);
  parser.header_limit(options_.header_bytes_max);
  session.stream.expires_after(options_.request_timeout);
  error_code error;
  co_await http::async_read_header(session.stream, buffer, parser,
                                   redirect_error(use_awaitable, error));
  if (error) co_return error;
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(session.stream, asio::buffer(kContinue),
                               redirect_error(use_awaitable, error));
    if (error) co_return error;
  }
  co_await http::async_read(session.stream, buffer, parser, redirect_error(use_awaitable, error));
  co_return error;
}

// What cannot be parsed is answered, as far as there is anybody to answer to.
asio::awaitable<void> HttpServer::Impl::refuse(Session& session, const Parser& parser,
                                               error_code error) {
  const bool is_syntax = error.category() == make_error_code(http::error::bad_target).category();
  if (!is_syntax || error == http::error::end_of_stream || error == http::error::partial_message) {
    co_return;
  }
  Problem problem = malformed_request(error.message());
  if (error == http::error::body_limit) problem = body_too_large();
  if (error == http::error::header_limit) {
    problem = {431, "", "request header too large", "", "", ""};
  }
  const std::string target(parser.get().target());
  Response response = api_.problem_response(problem, target.empty() ? "/" : target);
  co_await send(session, std::move(response), false, true, false);
  co_await drain(session);
}

asio::awaitable<Response> HttpServer::Impl::answer(Session& session, Request request,
                                                   const Route* route) {
  // A refusal of the router needs no engine either.
  if (!route || route->instant) co_return api_.handle(request);
  const auto pending = std::make_shared<Pending>(loop_);
  session.pending = pending;
  const std::string target = request.target;
  handlers_[static_cast<size_t>(route->waits_for)]->post(
      [this, pending, request = std::move(request)] {
        if (pending->abandoned) return;
        Response response = api_.handle(request);
        asio::post(loop_, [pending, response = std::move(response)]() mutable {
          pending->answer = std::move(response);
          pending->due.cancel();
        });
      });
  if (route->unhurried) {
    pending->due.expires_at(asio::steady_timer::time_point::max());
  } else {
    pending->due.expires_after(options_.answer_timeout);
  }
  error_code woken;
  co_await pending->due.async_wait(redirect_error(use_awaitable, woken));
  session.pending.reset();
  if (pending->answer) co_return std::move(*pending->answer);
  pending->abandoned = true;
  co_return api_.problem_response(answer_is_late(), target);
}

asio::awaitable<bool> HttpServer::Impl::send(Session& session, Response response, bool keep_alive,
                                             bool has_body, bool unhurried) {
  http::response<http::string_body> message;
  message.version(11);
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::server, "varve");
  if (!response.content_type.empty()) {
    message.set(http::field::content_type, response.content_type);
  }
  for (const auto& [name, value] : response.headers) message.set(name, value);
  if (has_body) message.body() = std::move(response.body);
  message.keep_alive(keep_alive);
  message.prepare_payload();
  if (!unhurried) session.stream.expires_after(kWriteTimeout);
  error_code error;
  co_await http::async_write(session.stream, message, redirect_error(use_awaitable, error));
  if (!keep_alive && !error)
    session.stream.socket().shutdown(Protocol::socket::shutdown_send, error);
  co_return keep_alive && !error;
}

asio::awaitable<void> HttpServer::Impl::drain(Session& session) {
  std::vector<char> nowhere(64 << 10);
  session.stream.expires_after(kDrainTime);
  error_code error;
  for (size_t drained = 0; drained < kDrainBytes && !error;) {
    const auto room = asio::buffer(nowhere);
    drained += co_await session.stream.async_read_some(room, redirect_error(use_awaitable, error));
  }
}

HttpServer::HttpServer(const Api& api, HttpServerOptions options)
    : impl_(std::make_unique<Impl>(api, std::move(options))) {}
HttpServer::~HttpServer() = default;
void HttpServer::stop() { impl_->stop(); }
const std::vector<std::string>& HttpServer::addresses() const { return impl_->addresses(); }

}  // namespace api
