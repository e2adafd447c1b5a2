// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "io/listening_socket.h"
#include "io/ring.h"
#include "io/socket.h"

namespace io {

/// Accepts on a listening socket with a ring. close() it, and await the accept() under way, before
/// it goes.
class Listener {
 public:
  Listener(Ring& ring, ListeningSocket socket);
  /// What ListeningSocket makes, accepted on by `ring`. An adopted one keeps listening after
  /// close(), and clients wait there for the next server.
  static std::unique_ptr<Listener> tcp(Ring& ring, const HostPort& address, Duration patience = {});
  static std::unique_ptr<Listener> unix_socket(Ring& ring, const std::string& path,
                                               Duration patience = {});
  static std::unique_ptr<Listener> adopt(Ring& ring, OwnedFd fd);
  ~Listener();

  /// The next connection, with TCP_NODELAY and keep-alive set; nothing once the listener is closed.
  /// Throws std::system_error, for example EMFILE: wait a little and try again.
  Task<std::unique_ptr<Socket>> accept();

  /// Stops listening; a pending accept() returns nothing. The address is free when the listener has
  /// been destroyed.
  void close() noexcept;

  const std::string& address() const { return socket_.address(); }
  uint16_t port() const { return socket_.port(); }
  int descriptor() const { return socket_.descriptor(); }

 private:
  Ring& ring_;
  const ListeningSocket socket_;
  Ring::Handle accepting_;
  bool closed_ = false;
};

}  // namespace io
