// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/unfinished.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/jobs/delete_job.h"
#include "engine/jobs/publish.h"
#include "engine/jobs/repository_files.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr int64_t kPauseMax = 64;  // times the first pause

/// The keys of what is to be tried now.
template <class Retries>
auto due_in(const Retries& retries, io::SteadyTime now) {
  std::vector<typename Retries::key_type> due;
  for (const auto& [key, retry] : retries) {
    if (retry.due <= now) due.push_back(key);
  }
  return due;
}

io::Task<void> carry_to_its_end(Core& core, std::string job_id) {
  auto job = core.catalogue->jobs.find(job_id);
  if (job && job->deleting) {
    co_await finish_deletion(core, std::move(*job));
  } else if (job && job->state == JobState::finalizing) {
    co_await roll_forward(core, std::move(*job));
  }
}

/// What lies in a repository that is unavailable waits until it comes back.
bool is_reachable(Catalogue& catalogue, const Availability& availability,
                  const std::string& job_id) {
  const auto job = catalogue.jobs.find(job_id);
  return !job || availability.cause(job->repository_id).empty();
}

}  // namespace

void Unfinished::put_off(Retry& retry, std::string_view what, std::string_view cause) const {
  retry.pause = std::clamp(2 * retry.pause, first_pause_, kPauseMax * first_pause_);
  retry.due = clock_.now() + retry.pause;
  io::log(io::LogLevel::warning, "{}: {}; varve tries again in {} ms", what, cause,
          std::chrono::duration_cast<std::chrono::milliseconds>(retry.pause).count());
}

void Unfinished::add_job(const std::string& job_id, std::string_view cause) {
  put_off(jobs_[job_id], fmt::format("job {}", job_id), cause);
}

void Unfinished::add_context(const std::string& repository_id, const std::string& context_id,
                             std::string_view cause) {
  put_off(contexts_[{repository_id, context_id}],
          fmt::format("the files that describe {} in repository {}", context_id, repository_id),
          cause);
}

io::Task<void> Unfinished::attempt(Core& core, std::string job_id) {
  if (!attempted_.insert(job_id).second) co_return;
  std::string cause;
  try {
    co_await carry_to_its_end(core, job_id);
    jobs_.erase(job_id);
  } catch (const std::exception& failure) {
    cause = failure.what();
  }
  attempted_.erase(job_id);
  if (!cause.empty()) add_job(job_id, cause);
}

io::Task<void> Unfinished::repair(Core& core, ContextKey context) {
  if (!repaired_.insert(context).second) co_return;
  const io::SteadyTime due = contexts_[context].due;
  std::string cause;
  try {
    co_await repair_context_files(core, context.second, context.first);
    // A failure inside has put it off.
    if (contexts_[context].due == due) contexts_.erase(context);
  } catch (const std::exception& failure) {
    cause = failure.what();
  }
  repaired_.erase(context);
  if (!cause.empty()) add_context(context.first, context.second, cause);
}

void Unfinished::try_again(Core& core, io::TaskScope& scope) {
  for (const std::string& id : due_in(jobs_, clock_.now())) {
    if (is_reachable(*core.catalogue, core.availability, id)) scope.spawn(attempt(core, id));
  }
  for (const ContextKey& context : due_in(contexts_, clock_.now())) {
    if (core.availability.cause(context.first).empty()) scope.spawn(repair(core, context));
  }
}

io::Task<void> finish_what_is_unfinished(Core& core) {
  while (!core.shutting_down) {
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          core.options.retry_interval);
    if (core.shutting_down) co_return;
    try {
      core.unfinished.try_again(core, core.background);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "unfinished jobs: {}; varve tries again", failure.what());
    }
  }
}

}  // namespace engine
