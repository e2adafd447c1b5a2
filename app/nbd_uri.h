#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace app {

/// Where an NBD export is. Spec: the NBD URI specification of the NBD project.
struct NbdUri {
  std::string host;  ///< a name or a number; "" of a Unix socket
  uint16_t port = 10809;
  std::string socket;  ///< a path; "" of TCP
  std::string export_name;
  bool tls = false;
};

/// Whether the text begins as an NBD URI does.
bool is_nbd_uri(std::string_view text);

/// nbd://host[:port]/name, nbd+unix:///name?socket=PATH, and both with nbds. Throws UsageError.
NbdUri parse_nbd_uri(std::string_view text);

}  // namespace app
