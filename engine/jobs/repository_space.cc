// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/repository_space.h"

#include <fmt/format.h>

#include <utility>

#include "engine/repository/storage.h"
#include "io/log.h"

namespace engine {
namespace {

/// Of the reserve: what wavers about it by less is told of once.
constexpr uint64_t kClearlyMorePart = 10;

Notification low_space(const Repository& repository, const RepositorySpace& space) {
  const uint64_t free = space.measure.available_bytes, reserve = space.reserve_bytes;
  Notification told;
  told.event = NotificationEvent::space;
  told.repository_id = repository.id;
  told.text = fmt::format(
      "repository {} is down to its space reserve: {} bytes free, {} bytes in "
      "reserve; no backup starts, and running ones may be failed",
      repository.id, free, reserve);
  told.details = {{"directory", repository.directory},
                  {"available_bytes", std::to_string(free)},
                  {"reserve_bytes", std::to_string(reserve)},
                  {"total_bytes", std::to_string(space.measure.total_bytes)}};
  return told;
}

}  // namespace

io::Task<void> measure_space(Core& core, Repository repository) {
  const std::string directory = repository.directory;
  StorageMeasure measure;
  try {
    measure = co_await measure_storage(core.parts.home, directory);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::debug, "repository {}: its free space cannot be measured: {}",
            repository.id, failure.what());
    co_return;
  }
  RepositorySpace& space = core.spaces[repository.id];
  space.measure = measure;
  space.reserve_bytes = reserve_of(measure.total_bytes, core.options.space_reserve_bytes);
  const uint64_t clearly_more = space.reserve_bytes + space.reserve_bytes / kClearlyMorePart;
  if (measure.available_bytes >= clearly_more) space.is_low = false;
  if (measure.available_bytes >= space.reserve_bytes) co_return;
  if (std::exchange(space.is_low, true)) co_return;
  Notification told = low_space(repository, space);
  io::log(io::LogLevel::error, "{}", told.text);
  core.tell(std::move(told));
}

Notification unavailable_repository(const Repository& repository, const std::string& cause) {
  Notification told;
  told.event = NotificationEvent::unavailable;
  told.repository_id = repository.id;
  told.text = fmt::format("repository {} is unavailable: {}", repository.id, cause);
  told.details = {{"directory", repository.directory}, {"cause", cause}};
  return told;
}

}  // namespace engine
