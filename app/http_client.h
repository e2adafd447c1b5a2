#pragma once

#include <chrono>
#include <string>

namespace app {

/// The HTTP API of a running `varve serve`.
struct HttpServerAddress {
  std::string url;    ///< "http://127.0.0.1:8082"
  std::string token;  ///< "": none
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

/// Blocks until there is an answer, for `patience` at most. Throws std::runtime_error with a
/// sentence when there is none, UsageError for a malformed URL. Any thread.
HttpAnswer http_call(const HttpServerAddress& server, const HttpCall& call);

}  // namespace app
