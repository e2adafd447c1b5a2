#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "io/clock.h"
#include "io/task.h"

namespace engine {

struct Core;

/// What was promised and could not be done at once: decided publishes, marked deletions, and files
/// that are derived from the catalogue. Each is tried again, after a pause that grows.
///
/// Nothing is lost with it: the catalogue holds the promises, and a start finds them there. Control
/// thread.
class Unfinished {
 public:
  /// `cause` held up a job that is `finalizing` or being deleted.
  void add_job(Core& core, const std::string& job_id, std::string_view cause);
  /// Some chain.json, link or vm.json of this context is not as the catalogue has it.
  void add_context(Core& core, const std::string& repository_id, const std::string& context_id,
                   std::string_view cause);

  /// Carries such a job to its end, or adds it.
  io::Task<void> attempt(Core& core, std::string job_id);
  /// One try for everything that is due.
  io::Task<void> try_again(Core& core);

 private:
  struct Retry {
    io::SteadyTime due{};
    io::Duration pause{};
  };
  static void put_off(Core& core, Retry& retry, std::string_view what, std::string_view cause);

  std::map<std::string, Retry> jobs_;
  std::map<std::pair<std::string, std::string>, Retry> contexts_;  // repository, context
};

/// Until the engine shuts down.
io::Task<void> finish_what_is_unfinished(Core& core);

}  // namespace engine
