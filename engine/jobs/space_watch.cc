// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/space_watch.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/end_job.h"
#include "engine/jobs/kept_transfers.h"
#include "engine/repository/storage.h"
#include "io/log.h"

namespace engine {

/// A repository that is being written to.
struct SpaceWatch::Used {
  std::shared_ptr<ActiveJob> youngest;  ///< of those that may be failed; null when there is none
};

namespace {

/// Neither ending already nor inside a step, which ends by itself.
bool may_be_failed(const ActiveJob& job) {
  return !job.failing && is_active(job.row.state) && job.row.state != JobState::finalizing &&
         !job.steps.locked();
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

io::Task<uint64_t> held_ahead(io::FileSystem& files, const ActiveJobs& jobs,
                              std::string repository_id) {
  uint64_t held = 0;
  const auto running = jobs.all();
  for (const auto& job : running) {
    if (job->row.repository_id != repository_id) continue;
    for (size_t at = 0; at < job->ingests.size(); ++at) {
      if (!job->ingests[at]) continue;
      const std::string path = job->ingests[at]->path();
      const auto status = co_await files.status(path, false);
      if (!status || !job->ingests[at]) continue;
      const uint64_t used = job->ingests[at]->used_bytes();
      held += status->allocated_bytes - std::min(status->allocated_bytes, used);
    }
  }
  co_return held;
}

void limit_allocation_ahead(qcow::DiskShare& disk, const ActiveJobs& jobs, uint64_t spare_bytes) {
  constexpr uint64_t kPart = 4, kLeast = 1 << 20;
  uint64_t images = 1;
  for (const auto& job : jobs.all()) images += job->ingests.size();
  const uint64_t step = spare_bytes / kPart / images;
  disk.limit_step(step < kLeast ? 0 : step);
}

io::Task<void> SpaceWatch::look_at(const std::string& repository_id, Used used) {
  const auto next = next_.find(repository_id);
  if (next != next_.end() && core_.steady_now() < next->second) co_return;
  const auto repository = core_.catalogue->repositories.find(repository_id);
  if (!repository) co_return;
  const std::string directory = repository->directory;
  const io::SpaceStatus space = co_await core_.files().space(directory);
  const uint64_t reserve = reserve_of(space.total_bytes, core_.options.space_reserve_bytes);
  uint64_t free = space.available_bytes;
  limit_allocation_ahead(*core_.disk_share(directory), core_.jobs, free - std::min(free, reserve));
  if (free >= reserve) co_return;
  free += co_await held_ahead(core_.files(), core_.jobs, repository_id);
  if (free >= reserve) co_return;
  // What nobody may ever come for goes before what is being written.
  const bool made_room = co_await drop_kept_of(core_, repository_id, "the repository is full");
  if (made_room) co_return;
  if (!may_be_failed(*used.youngest)) co_return;
  used.youngest->failing = true;
  next_[repository_id] = core_.steady_now() + kPause;
  core_.background.spawn(fail_job(
      core_, used.youngest, FailureCode::space,
      fmt::format("repository '{}' is down to its space reserve: {} bytes free, {} bytes in "
                  "reserve, {} bytes missing",
                  repository_id, free, reserve, reserve - free),
      Ingest::Leaving::nothing));
}

io::Task<void> SpaceWatch::look_once(std::string repository_id, Used used) {
  if (!looked_at_.insert(repository_id).second) co_return;
  try {
    co_await look_at(repository_id, used);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "repository '{}': its free space cannot be measured: {}",
            repository_id, failure.what());
  }
  looked_at_.erase(repository_id);
}

void SpaceWatch::look() {
  for (auto& [id, used] : in_use()) looks_.spawn(look_once(id, used));
}

}  // namespace engine
