#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "io/address.h"
#include "io/owned_fd.h"
#include "io/ring.h"
#include "io/socket.h"

namespace io {

/// A listening socket on a ring. Bound when made, so a port is really ours before it is announced.
/// close() it, and await the accept() under way, before it goes.
class Listener {
 public:
  /// A process that was killed holds its sockets until the kernel has ended its ring, which comes
  /// some time after the process itself is gone: so a program that starts tries an address that is
  /// taken for this long, and blocks meanwhile.
  static constexpr Duration kStartPatience = std::chrono::seconds(2);

  /// Throws std::system_error (EADDRINUSE, …) naming the address. Port 0 takes any free one.
  static std::unique_ptr<Listener> tcp(Ring& ring, const HostPort& address, Duration patience = {});

  /// Mode 0660. A socket file that no process listens on any more is replaced; a live one throws
  /// EADDRINUSE.
  static std::unique_ptr<Listener> unix_socket(Ring& ring, const std::string& path,
                                               Duration patience = {});

  /// Takes over a socket that listens already (socket activation). Others may hold it too: close()
  /// leaves it listening, and clients wait there for the next server.
  static std::unique_ptr<Listener> adopt(Ring& ring, OwnedFd fd);

  ~Listener();

  /// The next connection, with TCP_NODELAY and keep-alive set; nothing once the listener is closed.
  /// Throws std::system_error, for example EMFILE: wait a little and try again.
  Task<std::unique_ptr<Socket>> accept();

  /// Stops listening; a pending accept() returns nothing. The address is free when the listener has
  /// been destroyed.
  void close() noexcept;

  std::string address() const { return text_; }
  uint16_t port() const { return port_; }
  int descriptor() const { return fd_.get(); }

 private:
  enum class Origin : uint8_t { made, adopted };
  Listener(Ring& ring, OwnedFd fd, std::string text, uint16_t port, std::string unix_path,
           Origin origin = Origin::made);

  Ring& ring_;
  OwnedFd fd_;
  std::string text_;
  uint16_t port_;
  std::string unix_path_;
  const Origin origin_;
  Ring::Handle accepting_;
  /// Device and inode of the socket file; no other file gets them while `fd_` is open.
  const std::optional<std::pair<dev_t, ino_t>> socket_file_;
  bool closed_ = false;
};

}  // namespace io
