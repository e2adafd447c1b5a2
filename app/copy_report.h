// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "app/failure.h"
#include "engine/restore/copier.h"
#include "io/clock.h"

namespace app {

/// What `varve restore` and `varve pull` say while they work: a line that is written over on a
/// terminal, or JSON lines: {"event":"start"}, "progress", "done", "error".
class CopyReport {
 public:
  CopyReport(bool json, io::Clock& clock);

  void start(const std::string& source, const std::string& target, uint64_t size,
             uint64_t resumed_at);
  void progress(const engine::CopyProgress& progress);
  void done(const engine::CopyProgress& progress, const std::string& target);

 private:
  double seconds() const;

  const bool json_, is_terminal_;
  io::Clock& clock_;
  io::SteadyTime started_;
  uint64_t resumed_at_ = 0;
};

/// One JSON object as a line of standard output.
void print_json_line(const nlohmann::ordered_json& json);

/// A line about something that does not end the work.
void report_warning(bool json, const std::string& text);

/// The line of an error, in JSON when that is asked for.
void report_error(bool json, const Failure& failure);

}  // namespace app
