#pragma once

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

/// GET of `target`, path and query, encoded. Blocks, for 30 s at most. Throws std::runtime_error
/// with a sentence when there is no answer, UsageError for a malformed URL.
HttpAnswer http_get(const HttpServerAddress& server, const std::string& target);

}  // namespace app
