// SPDX-License-Identifier: Apache-2.0
#include "io/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>

#include "io/failure.h"

namespace io {

HostPort parse_host_port(std::string_view text) {
  const auto refuse = [&] {
    return std::invalid_argument(fmt::format(
        "\"{}\" is not an address; write HOST:PORT, for example 127.0.0.1:10809", text));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) throw refuse();
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || host.empty()) throw refuse();
  return {std::string(host), port};
}

std::string to_text(const HostPort& address) {
  const bool is_v6 = address.host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", address.host, address.port)
               : fmt::format("{}:{}", address.host, address.port);
}

SocketAddress SocketAddress::tcp(const std::string& host, uint16_t port) {
  const std::string numeric = host == "localhost" ? "127.0.0.1" : host;
  SocketAddress address;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, numeric.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&address.storage, &v4, sizeof v4);
    address.length = sizeof v4;
  } else if (inet_pton(AF_INET6, numeric.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&address.storage, &v6, sizeof v6);
    address.length = sizeof v6;
  } else {
    throw std::invalid_argument(
        fmt::format("\"{}\" is not a numeric IPv4 or IPv6 address, nor \"localhost\"", host));
  }
  return address;
}

SocketAddress SocketAddress::unix_path(const std::string& path) {
  sockaddr_un local{};
  if (path.size() >= sizeof local.sun_path) {
    throw std::invalid_argument(fmt::format(
        "\"{}\" is too long for a Unix socket: at most {} bytes", path, sizeof local.sun_path - 1));
  }
  local.sun_family = AF_UNIX;
  std::memcpy(local.sun_path, path.c_str(), path.size() + 1);
  SocketAddress address;
  std::memcpy(&address.storage, &local, sizeof local);
  address.length = sizeof local;
  return address;
}

SocketAddress SocketAddress::local_of(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    throw failure("ask the address of", "a socket", errno);
  }
  return address;
}

uint16_t SocketAddress::port() const {
  sockaddr_in v4;
  sockaddr_in6 v6;
  switch (storage.ss_family) {
    case AF_INET:
      std::memcpy(&v4, &storage, sizeof v4);
      return ntohs(v4.sin_port);
    case AF_INET6:
      std::memcpy(&v6, &storage, sizeof v6);
      return ntohs(v6.sin6_port);
    default:
      return 0;
  }
}

std::string SocketAddress::text() const {
  std::array<char, INET6_ADDRSTRLEN> host{};
  sockaddr_in v4;
  sockaddr_in6 v6;
  switch (storage.ss_family) {
    case AF_INET:
      std::memcpy(&v4, &storage, sizeof v4);
      inet_ntop(AF_INET, &v4.sin_addr, host.data(), host.size());
      return to_text(HostPort{host.data(), port()});
    case AF_INET6:
      std::memcpy(&v6, &storage, sizeof v6);
      inet_ntop(AF_INET6, &v6.sin6_addr, host.data(), host.size());
      return to_text(HostPort{host.data(), port()});
    default:
      return "unix";
  }
}

std::string SocketAddress::path() const {
  if (storage.ss_family != AF_UNIX) return {};
  sockaddr_un local;
  std::memcpy(&local, &storage, sizeof local);
  const size_t room = std::min<size_t>(length, sizeof local) - offsetof(sockaddr_un, sun_path);
  return {local.sun_path, ::strnlen(local.sun_path, room)};
}

bool SocketAddress::is_loopback() const {
  sockaddr_in v4;
  sockaddr_in6 v6;
  switch (storage.ss_family) {
    case AF_INET:
      std::memcpy(&v4, &storage, sizeof v4);
      return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
    case AF_INET6:
      std::memcpy(&v6, &storage, sizeof v6);
      return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    default:
      return storage.ss_family == AF_UNIX;
  }
}

}  // namespace io
