// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace io {

/// A host name or number, and a port. 0 means any free port.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};

/// "127.0.0.1:10809", "[::1]:10809", "localhost:8082". Throws std::invalid_argument with a
/// sentence.
HostPort parse_host_port(std::string_view text);
std::string to_text(const HostPort& address);

/// A socket address as the kernel takes it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  /// Resolves a numeric address or "localhost" (127.0.0.1); other names are refused, because
  /// nothing in varve waits for a name server.
  static SocketAddress tcp(const std::string& host, uint16_t port);
  static SocketAddress unix_path(const std::string& path);
  static SocketAddress local_of(int fd);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  uint16_t port() const;
  std::string text() const;
  /// Of a Unix socket; "" for others, and for one without a name in the file system.
  std::string path() const;
  bool is_loopback() const;
};

}  // namespace io
