// SPDX-License-Identifier: Apache-2.0
#include "io/listening_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "io/failure.h"

namespace io {

void set_socket_option(int fd, int level, int name, int value) {
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

namespace {

constexpr int kBacklog = 512;

OwnedFd listening_socket(const SocketAddress& address, const std::string& name) {
  const int family = address.storage.ss_family;
  OwnedFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) throw failure("listen on", name, errno);
  set_socket_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (family == AF_INET6) set_socket_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    throw failure("listen on", name, errno);
  }
  return fd;
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

ListeningSocket::ListeningSocket(OwnedFd fd, const std::string& made_path, bool is_adopted)
    : fd_(std::move(fd)), is_adopted_(is_adopted) {
  const SocketAddress bound = SocketAddress::local_of(fd_.get());
  const std::string path = bound.path();
  is_unix_ = bound.storage.ss_family == AF_UNIX;
  address_ = path.empty() ? bound.text() : path;
  port_ = is_unix_ ? 0 : bound.port();
  if (!made_path.empty()) file_ = file_at(made_path);
}

ListeningSocket ListeningSocket::tcp(const HostPort& address, Duration patience) {
  const SocketAddress wanted = SocketAddress::tcp(address.host, address.port);
  OwnedFd fd = while_taken(patience, [&] { return listening_socket(wanted, to_text(address)); });
  return {std::move(fd), "", false};
}

ListeningSocket ListeningSocket::unix_socket(const std::string& path, Duration patience) {
  const SocketAddress address = SocketAddress::unix_path(path);
  OwnedFd fd = while_taken(patience, [&] {
    remove_stale_socket(path, address);
    return listening_socket(address, path);
  });
  if (::chmod(path.c_str(), 0660) != 0) throw failure("set mode of", path, errno);
  return {std::move(fd), path, false};
}

ListeningSocket ListeningSocket::adopt(OwnedFd fd) { return {std::move(fd), "", true}; }

/// A newer server may have put a socket of its own there.
ListeningSocket::~ListeningSocket() {
  if (fd_.valid() && file_ && file_at(address_) == file_) ::unlink(address_.c_str());
}

/// Device and inode of the name itself; nothing when there is no such name.
std::optional<ListeningSocket::FileId> ListeningSocket::file_at(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId(status.st_dev, status.st_ino);
}

}  // namespace io
