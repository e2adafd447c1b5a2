// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <nlohmann/json.hpp>
#include <string>

namespace app {

/// How a command has failed, for people and for programs.
struct Failure {
  int exit_status = 1;  ///< app/exit_status.h
  std::string error;    ///< what has happened, without the hint
  std::string code;     ///< the server's stable word, else that of the exit status
  std::string hint;     ///< what to do; "": nothing more is known

  /// "error. Hint", or "error; hint" where the hint goes on, for people.
  std::string text() const;
  /// {"error":…,"code":…,"hint":…,"exit_status":…}
  nlohmann::ordered_json json() const;
};

/// Of what a client of the server, or any other command, has thrown.
Failure failure_of(const std::exception& thrown);

/// One line: JSON on standard output when that is asked for, else for people on standard error;
/// there too when standard output takes nothing.
void print_failure(bool json, const Failure& failure);

/// Whoever reads may have gone: that ends no backup, and is told at the end.
void flush_output() noexcept;
/// A list that ends in the middle must not look whole. Throws std::system_error.
void require_output_written();

/// The exit status that an HTTP status of the API stands for.
int exit_status_of_http(int status);

}  // namespace app
