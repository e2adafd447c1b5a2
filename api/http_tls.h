// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace api {

/// What a listener for HTTP does about TLS. One that is `on` serves both on one port, and tells
/// them apart by the first byte; `require` refuses what comes without TLS.
enum class HttpTlsMode : uint8_t { off, on, require };

/// TLS of the HTTP server: the contents of the same files as for NBD, in PEM.
struct HttpTls {
  HttpTlsMode mode = HttpTlsMode::off;  ///< of TCP; a Unix socket never requires it
  bool plain_beyond_loopback = false;   ///< else other hosts need TLS where it is on
  std::string ca;                       ///< ca-cert.pem
  std::string certificate, key;         ///< server-cert.pem, server-key.pem
  std::string crl;                      ///< ca-crl.pem; "": none
  bool verify_peer = false;             ///< inside TLS, clients need a certificate of `ca`
  /// When not empty, only clients whose certificate has one of these names (distinguished name,
  /// common name or DNS name, with * as a wildcard) get in; implies verify_peer.
  std::vector<std::string> allowed_names;
};

/// Throws std::runtime_error, with a sentence, when a server could not use them.
void check_http_tls(const HttpTls& tls);

}  // namespace api
