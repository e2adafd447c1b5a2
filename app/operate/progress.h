// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/operate/text.h"

namespace app {

/// "42.3 %  received 1.2 GiB, zero 3.0 GiB, elided 0 B, stored 1.1 GiB  120.0 MiB/s, ETA 3 min", of
/// a backup as the API shows it. Pure.
std::string progress_text(const nlohmann::json& backup, const Style& style);

/// The line that is written over on a terminal; elsewhere, when something changes and now and then.
class ProgressLine {
 public:
  /// Of standard error.
  explicit ProgressLine(const Style& style);
  void show(const nlohmann::json& backup);
  /// The next line begins at the left.
  void end();

 private:
  const Style& style_;
  const bool is_terminal_;
  size_t width_ = 0;        // of what stands there
  std::string last_state_;  // as printed last
  unsigned left_out_ = 0;   // since then
};

}  // namespace app
