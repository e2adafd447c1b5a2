// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "io/address.h"
#include "io/clock.h"
#include "io/owned_fd.h"

namespace io {

/// A socket that listens, whoever accepts on it. Bound when made, so a port is really ours before
/// it is announced; what it made in the file system goes with it. Any thread; makers may block.
class ListeningSocket {
 public:
  /// A process that was killed holds its sockets until the kernel has ended its ring, which comes
  /// some time after the process itself is gone: so a program that starts tries an address that is
  /// taken for this long, and blocks meanwhile.
  static constexpr Duration kStartPatience = std::chrono::seconds(2);

  /// Throws std::system_error (EADDRINUSE, …) naming the address. Port 0 takes any free one.
  static ListeningSocket tcp(const HostPort& address, Duration patience = {});
  /// Mode 0660. A socket file that no process listens on any more is replaced; a live one throws
  /// EADDRINUSE.
  static ListeningSocket unix_socket(const std::string& path, Duration patience = {});
  /// Takes over a socket that listens already (socket activation). Others may hold it too.
  static ListeningSocket adopt(OwnedFd fd);

  ListeningSocket(ListeningSocket&& other) noexcept = default;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ~ListeningSocket();

  int descriptor() const { return fd_.get(); }
  uint16_t port() const { return port_; }
  /// "127.0.0.1:10809", or the path of a Unix socket.
  const std::string& address() const { return address_; }
  bool is_unix() const { return is_unix_; }
  bool is_adopted() const { return is_adopted_; }

 private:
  using FileId = std::pair<dev_t, ino_t>;
  ListeningSocket(OwnedFd fd, const std::string& made_path, bool is_adopted);
  static std::optional<FileId> file_at(const std::string& path);

  OwnedFd fd_;
  std::string address_;
  uint16_t port_ = 0;
  bool is_unix_ = false, is_adopted_ = false;
  /// The socket file made here; no other file gets its inode number while `fd_` is open.
  std::optional<FileId> file_;
};

/// setsockopt with an int. A socket without the option still works, so a refusal is passed over.
void set_socket_option(int fd, int level, int name, int value);

}  // namespace io
