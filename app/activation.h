// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/owned_fd.h"

namespace app {

/// A listening socket that this process was started with: systemd's socket activation, which
/// `nbdcopy -- [ varve nbd FILE ]` uses too (L4).
struct ActivatedSocket {
  enum class Use : uint8_t { nbd, nbd_tls, api };
  io::OwnedFd fd;
  Use use = Use::nbd;
  std::string name;  ///< for error texts: "socket 3 (nbd-tls)"
  bool is_local = true;
};

/// Takes over the sockets that were passed; none when they are meant for another process. The
/// variables are unset and the descriptors close on exec, so that no child takes them for its own.
/// Before the first thread. Throws UsageError for what is not a listening stream socket.
std::vector<ActivatedSocket> take_activated_sockets();

}  // namespace app
