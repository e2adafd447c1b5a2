// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/operate/columns.h"

namespace app {

/// "42.3 %  received 1.2 GiB, zero 3.0 GiB, elided 0 B, stored 1.1 GiB  120.0 MiB/s, ETA 3 min", of
/// a backup as the API shows it. Pure.
std::string progress_text(const nlohmann::json& backup, const Style& style);

/// "42.3 %  1.2 GiB of 3.0 GiB", of a task; the members are the done and the whole. Pure.
std::string share_text(const Selection& progress, const nlohmann::json& task, const Style& style);

/// The line that is written over on a terminal; elsewhere, when something changes and now and then.
class ProgressLine {
 public:
  /// Of standard error.
  ProgressLine();
  void show(const std::string& id, const std::string& state, const std::string& progress);
  /// The next line begins at the left.
  void end();

 private:
  const bool is_terminal_;
  size_t width_ = 0;        // of what stands there
  std::string last_state_;  // as printed last
  unsigned left_out_ = 0;   // since then
};

}  // namespace app
