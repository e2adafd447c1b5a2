#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/owned_fd.h"
#include "nbd/protocol.h"

namespace bench {

/// Where the server is: a Unix socket, or HOST:PORT when that is empty.
struct Server {
  std::string unix_path, tcp, export_name;
};

/// One NBD connection with blocking calls, past its handshake: as little as a client can do, so
/// that the server is what is measured. Every failure throws std::system_error.
class Connection {
 public:
  explicit Connection(const Server& server);

  uint64_t size() const { return size_; }  ///< of the export, bytes

  /// Sends a request; `payload` (of `length` bytes) only with a WRITE. Returns its cookie, which
  /// counts up from 1.
  uint64_t request(nbd::Command command, uint64_t offset, uint64_t length,
                   std::byte* payload = nullptr);

  /// Waits for one reply, throws when it is an error, and returns its cookie.
  uint64_t take_reply();

 private:
  void send(std::vector<iovec> pieces);
  void receive(std::span<std::byte> into);

  io::OwnedFd fd_;
  uint64_t size_ = 0;
  uint64_t cookie_ = 0;
};

}  // namespace bench
