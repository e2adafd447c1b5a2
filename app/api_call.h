// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "app/http_client.h"

namespace app {

/// The server has said no, in its own words.
class ServerRefused : public std::runtime_error {
 public:
  /// `error`: what is wrong, with its cause; `hint`: what to do, or "".
  ServerRefused(int status, std::string code, const std::string& error, const std::string& hint)
      : std::runtime_error(hint.empty() ? error : error + ". " + hint),
        status_(status),
        code_(std::move(code)),
        error_(error),
        hint_(hint) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }
  const std::string& error() const { return error_; }
  const std::string& hint() const { return hint_; }

 private:
  int status_;
  std::string code_;  ///< the API's stable word, "base_mismatch" say
  std::string error_, hint_;
};

/// A command ends with a status of its own, app/exit_status.h.
class CommandFailed : public std::runtime_error {
 public:
  CommandFailed(int exit_status, const std::string& text)
      : std::runtime_error(text), exit_status_(exit_status) {}
  int exit_status() const { return exit_status_; }

 private:
  int exit_status_;
};

/// Calls the API of a running `varve serve`. `call.target` is the path after /api/v1. Throws
/// ServerRefused, and what http_call throws. Any thread.
nlohmann::json api_call(const HttpServerAddress& server, HttpCall call);

/// For a name that the server does not know: throws CommandFailed when it is VM@WORD, there is such
/// a VM, and so WORD is what names no point. Else returns. Throws what api_call does. Any thread.
void refuse_unknown_point(const HttpServerAddress& server, const std::string& name);

}  // namespace app
