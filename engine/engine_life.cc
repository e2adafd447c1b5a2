// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <stdexcept>

#include "engine/bring_up.h"
#include "engine/catalogue/db.h"
#include "engine/engine_impl.h"
#include "engine/jobs/end_job.h"
#include "engine/jobs/recovery.h"
#include "engine/jobs/repository_watch.h"
#include "engine/jobs/watch.h"
#include "engine/repositories.h"
#include "engine/restores.h"
#include "engine/scrub.h"
#include "engine/silence.h"
#include "engine/values/layout.h"
#include "io/log.h"

/// How an engine comes up and goes down: docs/jobs.md, "Recovery after a crash".
namespace engine {
namespace {

constexpr const char* kShutDown = "server shut down during backup";

/// Who reads this has lost the catalogue, not the backups. A log left beside a new file would be
/// played into it.
std::runtime_error damaged(const std::string& path, std::string_view cause) {
  return std::runtime_error(
      fmt::format("catalogue {0} is damaged ({1}); put a copy in its place, or move it and {0}-wal "
                  "away and make it anew with 'varve rebuild --repository DIR --catalogue {0}'",
                  path, cause));
}

/// A damaged catalogue is reported before anything is written to it.
std::unique_ptr<Catalogue> open_sound(const std::string& path) try {
  auto catalogue = std::make_unique<Catalogue>(path);
  const std::vector<std::string> problems = catalogue->integrity_problems();
  for (const std::string& problem : problems) {
    io::log(io::LogLevel::error, "catalogue {}: {}", path, problem);
  }
  if (!problems.empty()) throw damaged(path, problems[0]);
  return catalogue;
} catch (const DbError& failure) {
  if (!failure.is_damage()) throw;
  throw damaged(path, failure.what());
}

}  // namespace

io::Task<void> bring_up(Core& core) {
  io::FileSystem& files = core.files();
  const std::string& catalogue_path = core.options.catalogue_path;
  std::string state_directory = io::parent_path(catalogue_path);
  co_await files.make_directories(std::move(state_directory));
  const std::string catalogue_lock = catalogue_lock_path(catalogue_path);
  const std::string catalogue_name = "catalogue " + catalogue_path;
  InstanceLock lock = co_await InstanceLock::acquire(core.parts.home, catalogue_lock,
                                                     catalogue_name, core.options.pid);
  core.locks.emplace(catalogue_path, std::move(lock));
  core.catalogue = open_sound(catalogue_path);
  const std::string secrets_file = secrets_path(catalogue_path);
  core.secrets.emplace(
      co_await Secrets::open(core.parts.home, secrets_file, core.options.named_secrets));
  core.catalogue_open = true;

  ensure_first_repository(core);
  co_await open_repositories(core);
  fail_unreachable_jobs(core);
  core.recovered = true;
}

void change_options(Core& core, const EngineOptions& options) {
  EngineOptions& now = core.options;
  now.timeouts = options.timeouts;
  now.failed_images = options.failed_images;
  now.keep_partial_for = options.keep_partial_for;
  now.commit_interval = options.commit_interval;
  now.commit_bytes = options.commit_bytes;
  now.write_elision = options.write_elision;
  now.second_reader_patience = options.second_reader_patience;
  now.point_idle = options.point_idle;
  now.scrub_interval = options.scrub_interval;
  now.scrub_bytes_per_second = options.scrub_bytes_per_second;
  now.verify_restores = options.verify_restores;
  now.space_reserve_bytes = options.space_reserve_bytes;
  now.named_secrets = options.named_secrets;
  core.secrets->rename(options.named_secrets);
}

io::Task<void> EngineImpl::start_there() {
  co_await bring_up(core_);
  watch_.spawn(watch_jobs(core_));
  watch_.spawn(core_.restores.close_idle_until(core_.stop_watching));
  watch_.spawn(watch_restores(core_));
  watch_.spawn(watch_repositories(core_));
  watch_.spawn(scrub_points(core_));
  watch_.spawn(watch_silence(core_));
  watch_.spawn(finish_what_is_unfinished(core_));
}

io::Task<void> EngineImpl::stop_there() {
  core_.shutting_down = true;
  core_.parts.node.stop();
  core_.stop_watching.set();
  for (const auto& [id, promotion] : core_.promotions) promotion->cancelled = true;
  for (const auto& verification : core_.verifications) verification->progress->cancelled = true;
  co_await watch_.joined();
  co_await core_.restores.stop();
  const auto running = core_.jobs.all();
  for (const auto& job : running) {  // all at once, because connections may linger for seconds
    for (const auto& ingest : job->ingests) {
      if (ingest) co_await ingest->close();
    }
  }
  for (const auto& job : running) co_await fail_job(core_, job, FailureCode::shutdown, kShutDown);
  // What is still being started ends in its own rollback.
  while (calls_ > 1) {
    co_await io::sleep(core_.parts.home.executor, core_.parts.home.clock,
                       std::chrono::milliseconds(1));
    for (const auto& job : core_.jobs.all())
      co_await fail_job(core_, job, FailureCode::shutdown, kShutDown);
  }
  co_await core_.background.joined();
  co_await core_.ports.join();
  down_ = true;
  core_.catalogue_open = false;
  core_.catalogue.reset();
  core_.locks.clear();
}

}  // namespace engine
