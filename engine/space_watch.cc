#include "engine/space_watch.h"

#include <fmt/format.h>

#include "engine/end_job.h"
#include "engine/storage.h"
#include "io/log.h"

namespace engine {

/// A repository that is being written to.
struct SpaceWatch::Used {
  std::shared_ptr<ActiveJob> youngest;  ///< of those that may be failed; null when there is none
};

namespace {

/// Neither ending already nor inside a step, which ends by itself.
bool may_be_failed(const ActiveJob& job) {
  return !job.failing && is_active(job.row.state) && !job.steps.locked();
}

}  // namespace

std::map<std::string, SpaceWatch::Used> SpaceWatch::in_use() const {
  std::map<std::string, Used> found;
  for (const auto& job : core_.jobs.all()) {
    if (!may_be_failed(*job)) continue;
    std::shared_ptr<ActiveJob>& youngest = found[job->row.repository_id].youngest;
    if (!youngest || job->begun > youngest->begun) youngest = job;
  }
  return found;
}

io::Task<void> SpaceWatch::look_at(const std::string& repository_id, Used used) {
  const auto next = next_.find(repository_id);
  if (next != next_.end() && core_.steady_now() < next->second) co_return;
  const auto repository = core_.catalogue->repositories.find(repository_id);
  if (!repository) co_return;
  const std::string directory = repository->directory;
  const io::SpaceStatus space = co_await core_.files().space(directory);
  const uint64_t reserve = reserve_of(space.total_bytes, core_.options.space_reserve_bytes);
  if (space.available_bytes >= reserve || !may_be_failed(*used.youngest)) co_return;
  used.youngest->failing = true;
  next_[repository_id] = core_.steady_now() + kPause;
  core_.background.spawn(fail_job(
      core_, used.youngest,
      fmt::format("no space left but the reserve in repository '{}': {} bytes free, {} bytes in "
                  "reserve, {} bytes missing",
                  repository_id, space.available_bytes, reserve, reserve - space.available_bytes)));
}

io::Task<void> SpaceWatch::look() {
  for (auto& [id, used] : in_use()) {
    try {
      co_await look_at(id, used);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "repository '{}': its free space cannot be measured: {}", id,
              failure.what());
    }
  }
}

}  // namespace engine
