// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/repository_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "engine/jobs/recovery.h"
#include "engine/jobs/repository_space.h"
#include "engine/repository/marker.h"
#include "engine/repository/storage.h"
#include "engine/values/in_use.h"
#include "engine/values/layout.h"
#include "engine/values/refusal.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr const char* kNotAnsweredYet = "it has not answered yet";

/// Published images that lie, by their rows, in the directory.
std::vector<std::string> images_in(Catalogue& catalogue, const Repository& repository) {
  std::vector<std::string> paths;
  for (KnownImage& image : catalogue.jobs.known_images(repository.id)) {
    if (image.job_state != JobState::completed || image.deleting) continue;
    if (image.image_path.starts_with(repository.directory + "/")) {
      paths.push_back(std::move(image.image_path));
    }
  }
  return paths;
}

io::Task<bool> any_is_there(io::FileSystem& files, std::vector<std::string> paths) {
  for (const std::string& path : paths) {
    const auto status = co_await files.status(path, false);
    if (status) co_return true;
  }
  co_return false;
}

io::Task<void> require_directory(io::FileSystem& files, Repository repository) {
  const std::string& directory = repository.directory;
  const auto status = co_await files.status(directory);
  if (!status) throw std::runtime_error(fmt::format("{} is not there", directory));
  if (status->kind != io::FileKind::directory) {
    throw std::runtime_error(fmt::format("{} is not a directory", directory));
  }
  if (repository.type != RepositoryType::local) {
    co_await prepare_repository(files, repository.type, directory);
  }
}

/// As it was when it was opened, and writable.
io::Task<void> require_unchanged(Catalogue& catalogue, io::FileSystem& files,
                                 Repository repository) {
  co_await require_directory(files, repository);
  const std::string marker_id = co_await identify(catalogue, files, repository);
  if (marker_id.empty()) {  // the next look opens the repository anew and makes one
    throw std::runtime_error(fmt::format("{} has lost its {}", repository.directory, kMarkerName));
  }
  const std::string lock_file = repository_lock_path(repository.directory);
  co_await files.open(lock_file, io::OpenMode::read_write);
}

bool is_same_file(const std::optional<io::FileStatus>& a, const std::optional<io::FileStatus>& b) {
  return a && b && a->device == b->device && a->inode == b->inode;
}

/// The lock of a life before this one is kept while it lies where others look for it.
io::Task<void> lock_anew(Core& core, Repository repository) {
  const auto held = core.locks.find(repository.id);
  if (held != core.locks.end()) {
    const std::optional<io::FileStatus> locked = held->second.locked_file();
    const std::string path = repository_lock_path(repository.directory);
    const auto there = co_await core.files().status(path);
    // It may have been given back meanwhile: `held` says nothing any more.
    if (core.locks.contains(repository.id) && is_same_file(locked, there)) co_return;
    core.locks.erase(repository.id);
  }
  co_await lock_repository(core, repository);
}

io::Task<void> open_repository(Core& core, Repository repository) {
  const bool first_use =
      repository.marker_id.empty() && images_in(*core.catalogue, repository).empty();
  if (first_use && repository.type == RepositoryType::local) {
    co_await core.files().make_directories(repository.directory);
  }
  co_await require_directory(core.files(), repository);
  std::string marker_id = co_await identify(*core.catalogue, core.files(), repository);
  co_await lock_anew(core, repository);
  if (marker_id.empty()) marker_id = co_await make_marker(core.parts.home, repository.directory);
  if (marker_id != repository.marker_id) {
    core.catalogue->repositories.set_marker(repository.id, marker_id);
  }
  co_await find_moved_images(*core.catalogue, core.files(), repository);
  co_await recover_repository(core, repository);
}

void note_unavailable(Core& core, const Repository& repository, const std::string& cause) {
  const std::string before = core.availability.cause(repository.id);
  if (!core.availability.set_unavailable(repository.id, cause)) return;
  io::log(io::LogLevel::error, {.error = cause}, "repository {} is unavailable: {}", repository.id,
          cause);
  if (before.empty() || before == kNotAnsweredYet) {
    core.tell(unavailable_repository(repository, cause));
  }
}

/// One look at a repository, and what whoever waits for it must know.
struct Look {
  explicit Look(io::Executor& executor) : done(executor) {}
  io::Event done;
  std::exception_ptr in_use;  // by another varve
};

/// Opens a repository that is unavailable; whatever fails is its cause from then on.
io::Task<void> try_repository(Core& core, Repository repository, std::shared_ptr<Look> look) {
  try {
    co_await open_repository(core, repository);
    const bool was_told = core.recovered;
    core.availability.set_available(repository.id);
    if (was_told) io::log(io::LogLevel::info, "repository {} is available again", repository.id);
  } catch (const InUse& failure) {
    look->in_use = std::current_exception();
    note_unavailable(core, repository, failure.what());
    co_return;
  } catch (const std::exception& failure) {
    note_unavailable(core, repository, failure.what());
    co_return;
  }
  try {
    co_await measure_and_keep(*core.catalogue, core.parts.home, repository);
    co_await measure_space(core, repository);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "repository {} cannot be measured: {}", repository.id,
            failure.what());
  }
}

io::Task<void> look_at(Core& core, Repository repository, std::shared_ptr<Look> look) {
  if (!core.availability.cause(repository.id).empty()) {
    co_await try_repository(core, repository, look);
    co_return;
  }
  try {
    co_await require_unchanged(*core.catalogue, core.files(), repository);
    co_await measure_space(core, repository);
  } catch (const std::exception& failure) {
    note_unavailable(core, repository, failure.what());
  }
}

/// One look at a time: a file system that does not answer is not asked again.
io::Task<void> look_once(Core& core, Repository repository, std::shared_ptr<Look> look) {
  const std::string id = repository.id;
  if (!core.looked_at.emplace(id, core.steady_now()).second) co_return;
  try {
    co_await look_at(core, std::move(repository), look);
    if (!core.catalogue->repositories.find(id)) {  // unregistered meanwhile
      core.locks.erase(id);
      core.spaces.erase(id);
      core.availability.set_available(id);
    }
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "repository {}: {}", id, failure.what());
  }
  core.looked_at.erase(id);
  look->done.set();
}

/// Begins a look at each, and says which of them have not answered the last one for too long.
void look_at_all(Core& core) {
  for (Repository& repository : core.catalogue->repositories.list()) {
    const auto begun = core.looked_at.find(repository.id);
    if (begun == core.looked_at.end()) {
      const auto unwatched = std::make_shared<Look>(core.parts.home.executor);
      core.background.spawn(look_once(core, std::move(repository), unwatched));
    } else if (core.steady_now() - begun->second >= core.options.repository_patience &&
               core.availability.cause(repository.id).empty()) {
      note_unavailable(core, repository, fmt::format("{} does not answer", repository.directory));
    }
  }
}

/// The way out for an operator who knows better: a new disk in the place of one that died.
std::string how_to_adopt(const Repository& repository) {
  return fmt::format(
      "If it is mounted and this directory is to be the repository from now on, make {}/{} "
      "contain {{\"id\":\"{}\",\"version\":1}}",
      repository.directory, kMarkerName, repository.marker_id);
}

}  // namespace

io::Task<std::string> identify(Catalogue& catalogue, io::FileSystem& files, Repository repository) {
  const auto marker = co_await read_marker(files, repository.directory);
  const bool had_marker = !repository.marker_id.empty();
  if (had_marker && marker == repository.marker_id) co_return *marker;
  if (had_marker && marker) {
    throw std::runtime_error(
        fmt::format("{} is the directory of another repository: its {} says {}, and this one is "
                    "{}; is the right file system mounted? {}",
                    repository.directory, kMarkerName, *marker, repository.marker_id,
                    how_to_adopt(repository)));
  }
  const std::vector<std::string> images = images_in(catalogue, repository);
  const bool found = co_await any_is_there(files, images);
  if (had_marker && !found) {
    throw std::runtime_error(fmt::format("{} has no {}: its file system is not mounted? {}",
                                         repository.directory, kMarkerName,
                                         how_to_adopt(repository)));
  }
  if (!images.empty() && !found) {
    throw std::runtime_error(
        fmt::format("not one of the {} images of this repository is in {}: its file system is not "
                    "mounted?",
                    images.size(), repository.directory));
  }
  co_return marker.value_or("");
}

io::Task<void> lock_repository(Core& core, Repository repository) {
  const std::string directory = repository.directory;
  for (const Repository& other : core.catalogue->repositories.list()) {
    if (other.id != repository.id && other.directory == directory &&
        core.locks.contains(other.id)) {
      throw std::runtime_error(fmt::format("{} is the directory of another repository", directory));
    }
  }
  const std::string path = repository_lock_path(directory);
  const std::string what = "repository " + directory;
  InstanceLock lock = co_await InstanceLock::acquire(core.parts.home, path, what, core.options.pid);
  core.locks.emplace(repository.id, std::move(lock));
}

io::Task<StorageMeasure> measure_and_keep(Catalogue& catalogue, io::Runtime runtime,
                                          Repository repository) {
  const std::string directory = repository.directory;
  const StorageMeasure measure = co_await measure_storage(runtime, directory);
  catalogue.repositories.set_storage(repository.id, measure);
  co_return measure;
}

io::Task<void> open_repositories(Core& core) {
  const std::vector<Repository> repositories = core.catalogue->repositories.list();
  std::vector<std::shared_ptr<Look>> looks;
  for (const Repository& repository : repositories) {
    core.availability.set_unavailable(repository.id, kNotAnsweredYet);
    looks.push_back(std::make_shared<Look>(core.parts.home.executor));
    core.background.spawn(look_once(core, repository, looks.back()));
  }
  const io::SteadyTime end = core.steady_now() + core.options.repository_patience;
  for (size_t at = 0; at < looks.size(); ++at) {
    const io::Duration left = std::max(end - core.steady_now(), io::Duration::zero());
    io::Event& done = looks[at]->done;
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, done, left);
    const bool was_given = repositories[at].directory == core.options.repository_path;
    if (looks[at]->in_use && was_given) std::rethrow_exception(looks[at]->in_use);
    if (done.is_set()) continue;
    note_unavailable(core, repositories[at], repositories[at].directory + " does not answer");
  }
}

io::Task<void> watch_repositories(Core& core) {
  io::SteadyTime next = core.steady_now() + core.options.repository_interval;
  while (!core.shutting_down) {
    // The watch of the jobs, which waits for the same event, rouses this one too.
    const io::Duration left = std::max(next - core.steady_now(), io::Duration::zero());
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          left);
    if (core.shutting_down || core.steady_now() < next) continue;
    next = core.steady_now() + core.options.repository_interval;
    try {
      look_at_all(core);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "the repositories cannot be looked at: {}", failure.what());
    }
  }
}

io::Task<void> require_available(Core& core, Repository repository) {
  std::string cause = core.availability.cause(repository.id);
  if (cause.empty()) {
    try {
      co_await require_unchanged(*core.catalogue, core.files(), repository);
    } catch (const std::exception& failure) {
      cause = failure.what();
      note_unavailable(core, repository, cause);
    }
  }
  if (!cause.empty()) throw refusals::repository_unavailable(repository.id, cause);
}

}  // namespace engine
