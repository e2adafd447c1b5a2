// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>

#include "io/sync.h"

namespace engine {

/// Who changes names in "<repository>/<context>": one at a time.
///
/// Start, publish, the bad ends, deletion, recovery and repair make, rename and remove files and
/// directories there, and each of them looks before it acts. The turn makes look and act one step.
///
/// Order, so that no deadlock is possible: a job's `steps` first, then one turn. Whoever has a turn
/// waits for no `steps` and for no other turn, and gives it back before it pauses. Control thread.
class ContextTurns {
 public:
  explicit ContextTurns(io::Executor& executor) : executor_(executor) {}

  /// Kept for as long as names are changed.
  io::Task<io::Grant> take(const std::string& repository_id, const std::string& context_id) {
    return mutexes_.try_emplace({repository_id, context_id}, executor_).first->second.lock();
  }

 private:
  io::Executor& executor_;
  std::map<std::pair<std::string, std::string>, io::Mutex> mutexes_;  // never removed
};

}  // namespace engine
