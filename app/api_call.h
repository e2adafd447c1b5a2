#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "app/http_client.h"

namespace app {

/// The server has said no, in its own words.
class ServerRefused : public std::runtime_error {
 public:
  ServerRefused(int status, const std::string& code, const std::string& text)
      : std::runtime_error(text), status_(status), code_(code) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string code_;  ///< the API's stable word, "base_mismatch" say
};

/// Calls the API of a running `varve serve`. `call.target` is the path after /api/v1. Throws
/// ServerRefused, with error, details and hint as one text, and what http_call throws. Any thread.
nlohmann::json api_call(const HttpServerAddress& server, HttpCall call);

}  // namespace app
