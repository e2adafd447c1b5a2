// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "io/owned_fd.h"
#include "io/ring.h"
#include "io/stream.h"

namespace io {

/// A connected socket on a ring.
class Socket final : public Stream {
 public:
  Socket(Ring& ring, OwnedFd fd, std::string peer)
      : ring_(ring), fd_(std::move(fd)), peer_(std::move(peer)) {}

  Task<size_t> receive(std::span<const iovec> into) override;
  Task<void> send(std::span<const iovec> from) override;
  Task<void> finish_sending() override;
  void abort() noexcept override;
  bool has_arrived() const override;
  std::string peer() const override { return peer_; }

  /// Gives the descriptor away, to continue the connection on another ring. Nothing may be under
  /// way; the socket is of no use afterwards.
  OwnedFd release() { return std::move(fd_); }

 private:
  Ring& ring_;
  OwnedFd fd_;
  std::string peer_;
};

/// Connects to a Unix socket or to a numeric TCP address; for clients and tests.
Task<std::unique_ptr<Socket>> connect_unix(Ring& ring, std::string path);
Task<std::unique_ptr<Socket>> connect_tcp(Ring& ring, std::string host, uint16_t port);

}  // namespace io
