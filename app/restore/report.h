#pragma once

#include <cstdint>
#include <string>

#include "engine/restore/copier.h"
#include "io/clock.h"

namespace app {

/// What `varve restore` says while it works: a line that is written over on a terminal, or JSON
/// lines: {"event":"start"}, "progress", "done", "error".
class RestoreReport {
 public:
  RestoreReport(bool json, io::Clock& clock);

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

/// The line of an error, in JSON when that is asked for.
void report_error(bool json, const std::string& text, int exit_status);

}  // namespace app
