// SPDX-License-Identifier: Apache-2.0
#if defined(__SANITIZE_THREAD__)
// Asio's fences are not understood by ThreadSanitizer; here they guard nothing that it must see.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include "api/http_server.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <set>
#include <thread>
#include <utility>

#include "api/http_connection.h"
#include "io/failure.h"
#include "io/listening_socket.h"
#include "io/log.h"

namespace api {
namespace {

namespace asio = boost::asio;
using asio::redirect_error;
using asio::use_awaitable;
using asio::ip::tcp;
using asio::local::stream_protocol;
using Error = HttpStream::Error;
using ConnectionPtr = std::shared_ptr<HttpConnection>;

constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // while out of file descriptors

/// An IPv4 peer of an IPv6 socket has its IPv4 address.
asio::ip::address address_of(const tcp::endpoint& endpoint) {
  const auto address = endpoint.address();
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

HttpEnds ends_of(tcp::socket& socket, const tcp::endpoint& peer) {
  Error error;
  socket.set_option(tcp::no_delay(true), error);
  socket.set_option(asio::socket_base::keep_alive(true), error);
  const auto address = address_of(peer);
  return {.peer_is_loopback = address.is_loopback(),
          .is_unix = false,
          .local_address = address_of(socket.local_endpoint(error)).to_string(),
          .peer_address = address.to_string(),
          .peer_uid = std::nullopt};
}

HttpEnds ends_of(stream_protocol::socket& socket, const stream_protocol::endpoint&) {
  HttpEnds ends;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
    ends.peer_uid = peer.uid;
  }
  return ends;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const Api& api, HttpServerOptions options);
  ~Impl() { stop(); }
  void stop();
  void use_tls(const HttpTls& tls);
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  template <class Acceptor>
  asio::awaitable<void> accept(Acceptor& acceptor);
  bool make_room();
  void begin(HttpStream::Protocol::socket socket, HttpEnds ends);
  void listen(io::ListeningSocket socket);
  void begin_stop();
  void end_if_done();

  const HttpServerOptions options_;
  asio::io_context loop_{1};
  asio::executor_work_guard<asio::io_context::executor_type> at_work_ = make_work_guard(loop_);
  asio::steady_timer grace_{loop_};
  std::vector<tcp::acceptor> acceptors_;
  std::vector<stream_protocol::acceptor> unix_acceptors_;
  std::vector<io::ListeningSocket> sockets_;  // what the acceptors have duplicates of
  std::vector<std::string> addresses_;
  HttpRoom room_;  // of the network thread, like all below
  std::set<ConnectionPtr> connections_;
  size_t leaving_ = 0;  // of connections_, those that give way
  std::thread thread_;
};

HttpServer::Impl::Impl(const Api& api, HttpServerOptions options)
    : options_(std::move(options)), room_(loop_, api, options_) {
  if (options_.tls.mode != HttpTlsMode::off) {
    room_.tls_context = make_tls_context(options_.tls);
    room_.tls = options_.tls;
  }
  for (const std::string& address : options_.addresses) {
    listen(io::ListeningSocket::tcp(io::parse_host_port(address)));
  }
  for (const int fd : options_.adopted) listen(io::ListeningSocket::adopt(io::OwnedFd(fd)));
  if (!options_.unix_socket.empty()) {
    listen(io::ListeningSocket::unix_socket(options_.unix_socket));
  }
  for (auto& acceptor : acceptors_) asio::co_spawn(loop_, accept(acceptor), asio::detached);
  for (auto& acceptor : unix_acceptors_) asio::co_spawn(loop_, accept(acceptor), asio::detached);
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

void HttpServer::Impl::use_tls(const HttpTls& tls) {
  auto context = tls.mode == HttpTlsMode::off ? nullptr : make_tls_context(tls);
  asio::post(loop_, [this, context = std::move(context), tls] {
    room_.tls_context = context;
    room_.tls = tls;
  });
}

void HttpServer::Impl::stop() {
  if (!thread_.joinable()) return;
  asio::post(loop_, [this] { begin_stop(); });
  thread_.join();
  for (auto& handlers : room_.handlers) handlers.reset();
}

void HttpServer::Impl::begin_stop() {
  room_.stopping = true;
  sockets_.clear();  // the file of a Unix socket goes before it stops listening
  for (auto& acceptor : acceptors_) acceptor.close();
  for (auto& acceptor : unix_acceptors_) acceptor.close();
  room_.feed->stop();
  for (const ConnectionPtr& connection : connections_) {
    if (connection->is_idle()) connection->close();
  }
  grace_.expires_after(options_.stop_grace);
  grace_.async_wait([this](Error error) {
    if (error) return;
    for (const ConnectionPtr& connection : connections_) connection->abandon();
  });
  end_if_done();
}

void HttpServer::Impl::end_if_done() {
  if (!room_.stopping || !connections_.empty()) return;
  grace_.cancel();
  at_work_.reset();
}

template <class Acceptor>
asio::awaitable<void> HttpServer::Impl::accept(Acceptor& acceptor) {
  asio::steady_timer pause(loop_);
  while (!room_.stopping) {
    Error error;
    typename Acceptor::protocol_type::endpoint peer;
    auto socket = co_await acceptor.async_accept(peer, redirect_error(use_awaitable, error));
    if (room_.stopping || error == asio::error::operation_aborted) co_return;
    if (error) {
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(redirect_error(use_awaitable, error));
      continue;
    }
    try {
      HttpEnds ends = ends_of(socket, peer);
      begin(HttpStream::Protocol::socket(std::move(socket)), std::move(ends));
    } catch (const std::exception& failure) {  // costs this connection, not those to come
      io::log(io::LogLevel::error, "http: a connection cannot be served: {}", failure.what());
    }
  }
}

/// Closes the connection that has asked nothing for the longest time; false when all are asking.
bool HttpServer::Impl::make_room() {
  HttpConnection* oldest = nullptr;
  for (const ConnectionPtr& connection : connections_) {
    if (connection->is_asking() || connection->giving_way) continue;
    if (oldest == nullptr || connection->turn() < oldest->turn()) oldest = connection.get();
  }
  if (oldest == nullptr) return false;
  oldest->giving_way = true;
  ++leaving_;
  oldest->close();
  return true;
}

void HttpServer::Impl::begin(HttpStream::Protocol::socket socket, HttpEnds ends) {
  const bool is_full = connections_.size() - leaving_ >= options_.connections_max;
  if (is_full && !make_room()) return;  // closes it
  auto connection = std::make_shared<HttpConnection>(room_, std::move(socket), std::move(ends));
  connections_.insert(connection);
  asio::co_spawn(loop_, connection->serve(), [this, connection](std::exception_ptr) {
    connection->close();
    connections_.erase(connection);
    if (connection->giving_way) --leaving_;
    end_if_done();
  });
}

HttpServer::HttpServer(const Api& api, HttpServerOptions options)
    : impl_(std::make_unique<Impl>(api, std::move(options))) {}
HttpServer::~HttpServer() = default;
void HttpServer::stop() { impl_->stop(); }
void HttpServer::use_tls(const HttpTls& tls) { impl_->use_tls(tls); }
const std::vector<std::string>& HttpServer::addresses() const { return impl_->addresses(); }

}  // namespace api
