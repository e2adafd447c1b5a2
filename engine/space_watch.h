#pragma once

#include <map>
#include <string>

#include "engine/core.h"

namespace engine {

/// Fails jobs before their repository is full: below the reserve (options.h) the youngest running
/// job of the repository is given up, with how much is missing. Jobs that publish are let through.
///
/// The space of a failed job comes back when its last connection has ended, so the next job of the
/// same repository is given up no sooner than kPause later. Control thread.
class SpaceWatch {
 public:
  static constexpr io::Duration kPause = std::chrono::seconds(10);

  explicit SpaceWatch(Core& core) : core_(core) {}

  io::Task<void> look();

 private:
  struct Used;
  std::map<std::string, Used> in_use() const;
  io::Task<void> look_at(const std::string& repository_id, Used used);

  Core& core_;
  std::map<std::string, io::SteadyTime> next_;  ///< by repository, when a job was failed
};

}  // namespace engine
