#include "engine/unfinished.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "engine/core.h"
#include "engine/delete_job.h"
#include "engine/publish.h"
#include "engine/repository_files.h"
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
bool is_reachable(Core& core, const std::string& job_id) {
  const auto job = core.catalogue->jobs.find(job_id);
  return !job || core.availability.cause(job->repository_id).empty();
}

}  // namespace

void Unfinished::put_off(Core& core, Retry& retry, std::string_view what, std::string_view cause) {
  const io::Duration first = core.options.retry_interval;
  retry.pause = std::clamp(2 * retry.pause, first, kPauseMax * first);
  retry.due = core.steady_now() + retry.pause;
  io::log(io::LogLevel::warning, "{}: {}; varve tries again in {} ms", what, cause,
          std::chrono::duration_cast<std::chrono::milliseconds>(retry.pause).count());
}

void Unfinished::add_job(Core& core, const std::string& job_id, std::string_view cause) {
  put_off(core, jobs_[job_id], fmt::format("job {}", job_id), cause);
}

void Unfinished::add_context(Core& core, const std::string& repository_id,
                             const std::string& context_id, std::string_view cause) {
  put_off(core, contexts_[{repository_id, context_id}],
          fmt::format("the files that describe {} in repository {}", context_id, repository_id),
          cause);
}

io::Task<void> Unfinished::attempt(Core& core, std::string job_id) {
  std::string cause;
  try {
    co_await carry_to_its_end(core, job_id);
    jobs_.erase(job_id);
  } catch (const std::exception& failure) {
    cause = failure.what();
  }
  if (!cause.empty()) add_job(core, job_id, cause);
}

io::Task<void> Unfinished::try_again(Core& core) {
  const auto jobs = due_in(jobs_, core.steady_now());
  for (const std::string& id : jobs) {
    if (!core.shutting_down && is_reachable(core, id)) co_await attempt(core, id);
  }
  const auto contexts = due_in(contexts_, core.steady_now());
  for (const auto& context : contexts) {
    if (core.shutting_down) co_return;
    if (!core.availability.cause(context.first).empty()) continue;
    const Retry before = contexts_[context];
    co_await repair_context_files(core, context.second, context.first);
    // A failure has put it off.
    if (contexts_[context].due == before.due) contexts_.erase(context);
  }
}

io::Task<void> finish_what_is_unfinished(Core& core) {
  while (!core.shutting_down) {
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          core.options.retry_interval);
    if (!core.shutting_down) co_await core.unfinished.try_again(core);
  }
}

}  // namespace engine
