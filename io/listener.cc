// SPDX-License-Identifier: Apache-2.0
#include "io/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>

#include "io/failure.h"

namespace io {
namespace {

/// A dead VMware proxy must be noticed within two minutes of silence (L2).
void tune_connection(int fd) {
  set_socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_socket_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set_socket_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

}  // namespace

Listener::Listener(Ring& ring, ListeningSocket socket) : ring_(ring), socket_(std::move(socket)) {
  // A ring's accept waits only on a socket that blocks; one that was adopted may not.
  const int flags = ::fcntl(socket_.descriptor(), F_GETFL);
  if (flags >= 0) ::fcntl(socket_.descriptor(), F_SETFL, flags & ~O_NONBLOCK);
}

std::unique_ptr<Listener> Listener::tcp(Ring& ring, const HostPort& address, Duration patience) {
  return std::make_unique<Listener>(ring, ListeningSocket::tcp(address, patience));
}

std::unique_ptr<Listener> Listener::unix_socket(Ring& ring, const std::string& path,
                                                Duration patience) {
  return std::make_unique<Listener>(ring, ListeningSocket::unix_socket(path, patience));
}

std::unique_ptr<Listener> Listener::adopt(Ring& ring, OwnedFd fd) {
  return std::make_unique<Listener>(ring, ListeningSocket::adopt(std::move(fd)));
}

Listener::~Listener() {
  assert(!accepting_.is_under_way() && "close() a listener and await its accept() before it goes");
}

Task<std::unique_ptr<Socket>> Listener::accept() {
  while (!closed_) {
    SocketAddress peer;
    peer.length = sizeof peer.storage;
    const auto accept = [&](io_uring_sqe* sqe) {
      io_uring_prep_accept(sqe, socket_.descriptor(), reinterpret_cast<sockaddr*>(&peer.storage),
                           &peer.length, SOCK_CLOEXEC);
    };
    const int32_t result = co_await ring_.submit(accept, &accepting_);
    if (result >= 0) {
      OwnedFd connection(result);
      if (closed_) break;
      if (peer.storage.ss_family != AF_UNIX) tune_connection(connection.get());
      co_return std::make_unique<Socket>(ring_, std::move(connection), peer.text());
    }
    // A connection that its client gave up before we took it is not an error of ours.
    const bool passing = result == -EINTR || result == -EAGAIN || result == -ECONNABORTED;
    if (!passing && !closed_) throw failure("accept on", socket_.address(), result);
  }
  co_return nullptr;
}

void Listener::close() noexcept {
  if (closed_) return;
  closed_ = true;
  if (socket_.is_adopted()) {
    ring_.cancel(accepting_);  // a shutdown would end the socket for all who hold it
  } else {
    ::shutdown(socket_.descriptor(), SHUT_RDWR);  // wakes the pending accept with EINVAL
  }
}

}  // namespace io
