// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nbd {

/// Where an NBD export is. Spec: the NBD URI specification of the NBD project.
struct Uri {
  std::string host;  ///< a name or a number without brackets; "" of a Unix socket
  uint16_t port = 10809;
  std::string socket;  ///< a path; "" of TCP
  std::string export_name;
  bool tls = false;  ///< nbds: TLS is required

  // What a client says about itself; never written.
  std::string user;              ///< of a pre-shared key
  std::string tls_certificates;  ///< tls-certificates=DIRECTORY
  std::string tls_psk;           ///< tls-psk-file=FILE
  std::string tls_host;          ///< tls-hostname=NAME, of the server's certificate
};

/// Whether the text begins as an NBD URI does.
bool is_uri(std::string_view text);

/// nbd://[user@]host[:port]/name, nbd+unix:///name?socket=PATH, and both with nbds. Throws
/// std::invalid_argument with what is wrong and how it is written.
Uri parse_uri(std::string_view text);

/// As parse_uri() reads it; the port is always there.
std::string to_text(const Uri& uri);

}  // namespace nbd
