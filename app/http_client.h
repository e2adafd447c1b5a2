// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <stdexcept>
#include <string>

namespace app {

/// The HTTP API of a running `varve serve`.
struct HttpServerAddress {
  std::string url;    ///< "http://127.0.0.1:8082", "https://…", or "unix:/run/varve/http.sock"
  std::string token;  ///< "": none
  /// Of https: a directory with ca-cert.pem, and with client-cert.pem and client-key.pem where the
  /// server asks who comes; "": $VARVE_TLS_CERTIFICATES, else what the system trusts.
  std::string certificates = {};
};

struct HttpAnswer {
  int status = 0;
  std::string body;
};

struct HttpCall {
  std::string method = "GET";
  std::string target;  ///< path and query, encoded
  std::string body;    ///< JSON; "": none
  std::chrono::seconds patience{30};
};

/// The server does not answer.
class ServerUnreachable : public std::runtime_error {
 public:
  ServerUnreachable(const std::string& error, const std::string& hint)
      : std::runtime_error(error + "; " + hint), error_(error), hint_(hint) {}
  const std::string& error() const { return error_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string error_, hint_;
};

/// Blocks until there is an answer, for `patience` at most. Throws ServerUnreachable when there is
/// none, UsageError for a malformed URL. Any thread.
HttpAnswer http_call(const HttpServerAddress& server, const HttpCall& call);

}  // namespace app
