// SPDX-License-Identifier: Apache-2.0
#include "app/activation.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <optional>

#include "app/options.h"
#include "io/address.h"

namespace app {
namespace {

constexpr int kFirstFd = 3;
constexpr int kSocketsMax = 64;

/// The variable's value, which no child is to see.
std::string take_variable(const char* name) {
  const char* const value = std::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  ::unsetenv(name);
  return taken;
}

std::optional<int> number_in(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(':', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

int socket_option(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

ActivatedSocket take(int fd, const std::string& fd_name) {
  ActivatedSocket socket;
  socket.name = fmt::format("socket {} ({})", fd, fd_name.empty() ? "nbd" : fd_name);
  if (fd_name == "nbd-tls") socket.use = ActivatedSocket::Use::nbd_tls;
  if (fd_name == "api") socket.use = ActivatedSocket::Use::api;
  if (socket_option(fd, SO_TYPE) != SOCK_STREAM || socket_option(fd, SO_ACCEPTCONN) != 1) {
    throw UsageError(socket.name + " of socket activation is not a listening stream socket");
  }
  socket.fd = io::OwnedFd(fd);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  socket.is_local = io::SocketAddress::local_of(fd).is_loopback();
  return socket;
}

}  // namespace

std::vector<ActivatedSocket> take_activated_sockets() {
  const std::string pid = take_variable("LISTEN_PID");
  const std::string fds = take_variable("LISTEN_FDS");
  const std::string names = take_variable("LISTEN_FDNAMES");
  std::vector<ActivatedSocket> sockets;
  if (number_in(pid) != ::getpid()) return sockets;
  const std::optional<int> count = number_in(fds);
  if (!count || *count < 0 || *count > kSocketsMax) {
    throw UsageError(fmt::format("LISTEN_FDS is \"{}\", not a number of sockets", fds));
  }
  std::vector<std::string> words = split(names);
  words.resize(static_cast<size_t>(*count));
  for (int index = 0; index < *count; ++index) {
    sockets.push_back(take(kFirstFd + index, words[static_cast<size_t>(index)]));
  }
  return sockets;
}

}  // namespace app
