// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "api/http_tls.h"
#include "app/options.h"

/// What HTTP asks for before it lets somebody in, decided before anything listens.
namespace app {

struct HttpListener {
  std::string option;     ///< for error texts: "--http 192.0.2.1:8082"
  bool is_local = false;  ///< loopback, or a Unix socket
};

/// Whether requests will need a token. Throws UsageError when the file of tokens cannot be used.
bool has_tokens(const ServeOptions& options);

/// Throws UsageError when a listener beyond loopback would have no token and --allow-no-token was
/// not said, or no TLS and --allow-plain-http was not said.
void check_http_access(const ServeOptions& options, const std::vector<HttpListener>& listeners);

/// Reads the certificates, when TLS of HTTP is not off. Throws UsageError.
api::HttpTls load_http_tls(const ServeOptions& options);

}  // namespace app
