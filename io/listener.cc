#include "io/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cassert>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "io/failure.h"

namespace io {
namespace {

constexpr int kBacklog = 512;

void set_option(int fd, int level, int name, int value) {
  // A connection without one of these still works; there is nothing to do about a refusal.
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

OwnedFd listening_socket(const SocketAddress& address, const std::string& name) {
  const int family = address.storage.ss_family;
  OwnedFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) throw failure("listen on", name, errno);
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    throw failure("listen on", name, errno);
  }
  return fd;
}

/// A dead VMware proxy must be noticed within two minutes of silence (L2).
void tune_connection(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

/// Removes the socket file of a server that is gone; leaves a live one, and any other file, alone.
void remove_stale_socket(const std::string& path, const SocketAddress& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return;
  const OwnedFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return;
  if (::connect(probe.get(), address.get(), address.length) != 0 && errno == ECONNREFUSED) {
    ::unlink(path.c_str());
  }
}

/// Device and inode of the name itself; nothing when there is no such name.
std::optional<std::pair<dev_t, ino_t>> file_at(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return std::pair(status.st_dev, status.st_ino);
}

template <class Listen>
OwnedFd while_taken(Duration patience, Listen listen) {
  constexpr std::chrono::milliseconds kPause{20};
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    try {
      return listen();
    } catch (const std::system_error& failure) {
      const bool taken = failure.code().value() == EADDRINUSE;
      if (!taken || std::chrono::steady_clock::now() >= end) throw;
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

Listener::Listener(Ring& ring, OwnedFd fd, std::string text, uint16_t port, std::string unix_path,
                   Origin origin)
    : ring_(ring),
      fd_(std::move(fd)),
      text_(std::move(text)),
      port_(port),
      unix_path_(std::move(unix_path)),
      origin_(origin),
      socket_file_(unix_path_.empty() ? std::nullopt : file_at(unix_path_)) {}

std::unique_ptr<Listener> Listener::tcp(Ring& ring, const HostPort& address, Duration patience) {
  const SocketAddress wanted = SocketAddress::tcp(address.host, address.port);
  OwnedFd fd = while_taken(patience, [&] { return listening_socket(wanted, to_text(address)); });
  const SocketAddress bound = SocketAddress::local_of(fd.get());
  return std::unique_ptr<Listener>(
      new Listener(ring, std::move(fd), bound.text(), bound.port(), ""));
}

std::unique_ptr<Listener> Listener::unix_socket(Ring& ring, const std::string& path,
                                                Duration patience) {
  const SocketAddress address = SocketAddress::unix_path(path);
  OwnedFd fd = while_taken(patience, [&] {
    remove_stale_socket(path, address);
    return listening_socket(address, path);
  });
  if (::chmod(path.c_str(), 0660) != 0) throw failure("set mode of", path, errno);
  return std::unique_ptr<Listener>(new Listener(ring, std::move(fd), path, 0, path));
}

std::unique_ptr<Listener> Listener::adopt(Ring& ring, OwnedFd fd) {
  const SocketAddress bound = SocketAddress::local_of(fd.get());
  const std::string path = bound.path();
  // A ring's accept waits only on a socket that blocks.
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags >= 0) ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
  return std::unique_ptr<Listener>(new Listener(ring, std::move(fd),
                                                path.empty() ? bound.text() : path, bound.port(),
                                                path, Origin::adopted));
}

/// A newer server may have put a socket of its own there.
Listener::~Listener() {
  assert(!accepting_.is_under_way() && "close() a listener and await its accept() before it goes");
  if (unix_path_.empty() || origin_ != Origin::made) return;
  if (file_at(unix_path_) == socket_file_) ::unlink(unix_path_.c_str());
}

Task<std::unique_ptr<Socket>> Listener::accept() {
  while (!closed_) {
    SocketAddress peer;
    peer.length = sizeof peer.storage;
    const auto accept = [&](io_uring_sqe* sqe) {
      io_uring_prep_accept(sqe, fd_.get(), reinterpret_cast<sockaddr*>(&peer.storage), &peer.length,
                           SOCK_CLOEXEC);
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
    if (!passing && !closed_) throw failure("accept on", text_, result);
  }
  co_return nullptr;
}

void Listener::close() noexcept {
  if (closed_) return;
  closed_ = true;
  if (origin_ == Origin::adopted) {
    ring_.cancel(accepting_);  // a shutdown would end the socket for all who hold it
  } else {
    ::shutdown(fd_.get(), SHUT_RDWR);  // wakes the pending accept with EINVAL
  }
}

}  // namespace io
