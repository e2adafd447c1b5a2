// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "io/clock.h"
#include "io/task.h"
#include "io/task_scope.h"

namespace engine {

struct Core;

/// What was promised and could not be done at once: decided publishes, marked deletions, and files
/// that are derived from the catalogue. Each is tried again, after a pause that grows.
///
/// Nothing is lost with it: the catalogue holds the promises, and a start finds them there. Control
/// thread.
class Unfinished {
 public:
  Unfinished(io::Clock& clock, io::Duration first_pause)
      : clock_(clock), first_pause_(first_pause) {}

  /// `cause` held up a job that is `finalizing` or being deleted.
  void add_job(const std::string& job_id, std::string_view cause);
  /// Some chain.json, link or vm.json of this context is not as the catalogue has it.
  void add_context(const std::string& repository_id, const std::string& context_id,
                   std::string_view cause);

  /// Carries such a job to its end, or adds it. Nothing happens while it is being attempted
  /// already.
  io::Task<void> attempt(Core& core, std::string job_id);
  /// Begins one try for everything that is due: side by side, because one repository that does not
  /// answer holds up no other.
  void try_again(Core& core, io::TaskScope& scope);

 private:
  struct Retry {
    io::SteadyTime due{};
    io::Duration pause{};
  };
  using ContextKey = std::pair<std::string, std::string>;  // repository, context
  io::Task<void> repair(Core& core, ContextKey context);
  void put_off(Retry& retry, std::string_view what, std::string_view cause) const;

  io::Clock& clock_;
  const io::Duration first_pause_;
  std::map<std::string, Retry> jobs_;
  std::map<ContextKey, Retry> contexts_;
  std::set<std::string> attempted_;  // jobs, now
  std::set<ContextKey> repaired_;    // contexts, now
};

/// Until the engine shuts down.
io::Task<void> finish_what_is_unfinished(Core& core);

}  // namespace engine
