// SPDX-License-Identifier: Apache-2.0
#include "engine/values/export_uri.h"

#include "nbd/uri.h"

namespace engine {

std::vector<std::string> export_uris(const EngineOptions& options, const std::string& name,
                                     uint16_t port) {
  std::vector<std::string> uris;
  const auto add = [&](nbd::TlsMode tls, nbd::Uri uri) {
    uri.export_name = name;
    uri.tls = tls != nbd::TlsMode::off;
    uris.push_back(nbd::to_text(uri));
  };
  const std::string& host = options.advertised_host;
  if (port != 0) add(options.ports_tls, {.host = host, .port = port});
  if (options.nbd_port != 0) add(options.main_tls, {.host = host, .port = options.nbd_port});
  if (!options.nbd_socket.empty()) add(options.socket_tls, {.socket = options.nbd_socket});
  return uris;
}

}  // namespace engine
