#include "engine/recovery.h"

#include <fmt/format.h>

#include <set>
#include <tuple>

#include "engine/delete_job.h"
#include "engine/end_job.h"
#include "engine/publish.h"
#include "engine/repository_files.h"
#include "engine/storage.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr const char* kRestarted = "server restarted during backup";

io::Task<void> fail_unfinished(Core& core, Job job, std::string cause) {
  core.catalogue->jobs.end(job.id, JobState::failed, cause, core.now());
  io::log(io::LogLevel::warning, "job {} of VM {} failed: {}", job.id, job.vm_name, cause);
  co_await discard_images(core, job);
  for (const JobDisk& disk : job.disks) {
    co_await refresh_chain_file(core, job.context_id, job.repository_id, disk.index);
  }
}

io::Task<void> settle_job(Core& core, Job job) {
  if (job.state != JobState::finalizing) {
    co_await fail_unfinished(core, std::move(job), kRestarted);
    co_return;
  }
  std::string cause;
  try {
    co_await roll_forward(core, job);
  } catch (const std::exception& failure) {
    cause =
        fmt::format("{}, and its publishing cannot be finished: {}", kRestarted, failure.what());
  }
  if (cause.empty()) {
    io::log(io::LogLevel::info, "job {} of VM {} completed: published after the restart", job.id,
            job.vm_name);
  } else {
    co_await fail_unfinished(core, std::move(job), std::move(cause));
  }
}

/// A crash between the last transaction and the links.
io::Task<void> restore_links(Core& core, Repository repository) {
  std::set<std::tuple<std::string, uint32_t, uint32_t>> disks;
  for (const Point& point : core.catalogue->points.list(repository.id)) {
    disks.emplace(point.context_id, point.disk_index, point.disk_key);
  }
  for (const auto& [context_id, index, key] : disks) {
    co_await refresh_latest_link(core, context_id, repository.id, index, key);
  }
}

}  // namespace

io::Task<void> recover(Core& core) {
  std::vector<Job> active = core.catalogue->jobs.active_jobs();
  for (Job& job : active) co_await settle_job(core, std::move(job));
  std::vector<Job> deleting = core.catalogue->jobs.deleting_jobs();
  for (Job& job : deleting) co_await finish_deletion(core, std::move(job));
  std::vector<Repository> repositories = core.catalogue->repositories.list();
  for (Repository& repository : repositories) {
    const std::string id = repository.id;
    try {
      const std::string directory = repository.directory;
      const auto status = co_await core.files().status(directory);
      if (!status || status->kind != io::FileKind::directory) {
        io::log(io::LogLevel::warning, "repository {}: {} is not there", id, directory);
        continue;
      }
      co_await remove_strays(core, repository);
      co_await restore_links(core, std::move(repository));
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "repository {} cannot be looked through: {}", id,
              failure.what());
    }
  }
}

}  // namespace engine
