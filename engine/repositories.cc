// SPDX-License-Identifier: Apache-2.0
#include "engine/repositories.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "engine/ingest/ingest.h"
#include "engine/jobs/repository_watch.h"
#include "engine/repository/marker.h"
#include "engine/repository/storage.h"
#include "engine/repository/storage_trial.h"
#include "engine/values/refusal.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr const char* kFirstRepository = "1";
constexpr const char* kFirstRepositoryName = "default";

RepositoryView view_of(Catalogue& catalogue, const Availability& availability,
                       Repository repository) {
  RepositoryView view;
  view.backup_count = catalogue.repositories.backup_count(repository.id);
  view.abilities = catalogue.repositories.abilities(repository.id);
  view.unavailable_cause = availability.cause(repository.id);
  view.repository = std::move(repository);
  return view;
}

Repository require_repository(Catalogue& catalogue, const std::string& id) {
  auto repository = catalogue.repositories.find(id);
  if (!repository) throw refusals::unknown_repository(id);
  return std::move(*repository);
}

StorageInfo info_of(Catalogue& catalogue, const std::string& id, const StorageMeasure& measure) {
  return {.repository_id = id,
          .total_bytes = measure.total_bytes,
          .used_bytes = measure.used_bytes,
          .available_bytes = measure.available_bytes,
          .backup_count = catalogue.repositories.backup_count(id),
          .last_check_at = measure.measured_at};
}

void warn_of_missing(const std::string& id, const StorageAbilities& abilities) {
  for (const StorageAbility& ability : kStorageAbilities) {
    if (abilities.*ability.member) continue;
    io::log(io::LogLevel::warning, "repository {}: its file system lacks {}: {}", id, ability.name,
            ability.when_missing);
  }
}

std::string free_id(Core& core, RepositoryType type, Time now) {
  const std::string base = fmt::format("repo-{}-{}", to_text(type), unix_seconds(now));
  std::string id = base;
  for (int attempt = 2; core.catalogue->repositories.find(id) || core.looked_at.contains(id);
       ++attempt) {
    id = fmt::format("{}-{}", base, attempt);
  }
  return id;
}

/// Keeps other registrations and the watch away from a repository that is being registered.
class IdInUse {
 public:
  IdInUse(Core& core, const std::string& id) : core_(core), id_(id) {
    if (!core_.looked_at.emplace(id_, core.steady_now()).second)
      throw refusals::repository_id_taken();
  }
  IdInUse(const IdInUse&) = delete;
  ~IdInUse() { core_.looked_at.erase(id_); }

 private:
  Core& core_;
  const std::string id_;
};

/// Makes the directory of a new repository its own: lock and marker. Returns what it can do.
io::Task<StorageAbilities> take_directory(Core& core, Repository& repository) {
  std::exception_ptr failure;
  try {
    co_await prepare_repository(core.files(), repository.type, repository.directory);
    const StorageAbilities abilities = co_await try_storage(core.parts.home, repository.directory);
    co_await lock_repository(core, repository);
    repository.marker_id = co_await make_marker(core.parts.home, repository.directory);
    co_return abilities;
  } catch (...) {
    failure = std::current_exception();
  }
  core.locks.erase(repository.id);
  throw refusals::repository_config_invalid(to_text(repository.type), text_of(failure));
}

io::Task<RepositoryTest> test_directory(Core& core, std::string id, RepositoryType type,
                                        std::string directory) {
  RepositoryTest test;
  try {
    // A test leaves nothing behind: the directory is made when the repository is registered.
    const auto status = co_await core.files().status(directory);
    if (!status) throw std::runtime_error(fmt::format("directory {} does not exist", directory));
    // A mount point without its file system is not written to.
    const auto registered = core.catalogue->repositories.find(id);
    if (registered && registered->directory == directory)
      co_await identify(*core.catalogue, core.files(), *registered);
    co_await prepare_repository(core.files(), type, directory);
    test.abilities = co_await try_storage(core.parts.home, directory);
    const StorageMeasure measure = co_await measure_storage(core.parts.home, directory);
    test.storage = info_of(*core.catalogue, id, measure);
    test.passed = true;
  } catch (const std::exception& failure) {
    test.error_details = failure.what();
  }
  co_return test;
}

}  // namespace

void ensure_first_repository(Core& core) {
  const std::string& directory = core.options.repository_path;
  Repository repository{.id = kFirstRepository,
                        .name = kFirstRepositoryName,
                        .type = RepositoryType::local,
                        .config_json = nlohmann::json{{"path", directory}}.dump(),
                        .directory = directory};
  auto known = core.catalogue->repositories.find(kFirstRepository);
  if (!known) {
    core.catalogue->repositories.insert(std::move(repository), core.now());
    io::log(io::LogLevel::info, "repository 1 is {}", directory);
  } else if (known->type == RepositoryType::local && known->directory != directory) {
    io::log(io::LogLevel::warning, "repository 1 was {} and is {} now", known->directory,
            directory);
    known->config_json = repository.config_json;
    known->directory = directory;
    known->marker_id.clear();  // it is the new directory's
    core.catalogue->repositories.update(*known, core.now());
  }
}

io::Task<RepositoryView> create_repository(Core& core, NewRepository repository) {
  const std::vector<Repository> known = core.catalogue->repositories.list();
  for (const Repository& other : known) {
    if (other.name == repository.name) throw refusals::repository_name_taken();
    if (other.id == repository.id) throw refusals::repository_id_taken();
  }
  const Time now = core.now();
  if (repository.id.empty()) repository.id = free_id(core, repository.type, now);
  const IdInUse id_in_use(core, repository.id);
  const StorageAbilities abilities = co_await take_directory(core, repository);
  try {
    repository = core.catalogue->repositories.insert(repository, now);
  } catch (...) {
    core.locks.erase(repository.id);
    throw;
  }
  core.catalogue->repositories.set_abilities(repository.id, abilities);
  warn_of_missing(repository.id, abilities);
  repository.storage = co_await measure_and_keep(*core.catalogue, core.parts.home, repository);
  io::log(io::LogLevel::info, "repository {} ({}) registered: {}", repository.id, repository.name,
          repository.directory);
  co_return view_of(*core.catalogue, core.availability, std::move(repository));
}

std::vector<RepositoryView> list_repositories(Core& core, const RepositoryFilter& filter) {
  std::vector<RepositoryView> views;
  std::vector<Repository> found = core.catalogue->repositories.list(filter);
  for (Repository& repository : found)
    views.push_back(view_of(*core.catalogue, core.availability, std::move(repository)));
  return views;
}

RepositoryView find_repository(Core& core, const std::string& id) {
  return view_of(*core.catalogue, core.availability, require_repository(*core.catalogue, id));
}

void delete_repository(Core& core, const std::string& id) {
  const Repository repository = require_repository(*core.catalogue, id);
  core.catalogue->repositories.erase(id);
  core.locks.erase(id);
  core.spaces.erase(id);
  core.availability.set_available(id);
  io::log(io::LogLevel::info, "repository {} is unregistered; its files stay", id);
}

io::Task<StorageInfo> measure_repository(Core& core, std::string id) {
  const Repository repository = require_repository(*core.catalogue, id);
  co_await require_available(core, repository);
  const StorageMeasure measure =
      co_await measure_and_keep(*core.catalogue, core.parts.home, repository);
  co_return info_of(*core.catalogue, id, measure);
}

io::Task<RepositoryTest> test_repository(Core& core, NewRepository request) {
  return test_directory(core, request.id, request.type, request.directory);
}

io::Task<RepositoryTest> test_repository(Core& core, std::string id) {
  const Repository repository = require_repository(*core.catalogue, id);
  const std::string directory = repository.directory;
  RepositoryTest test = co_await test_directory(core, id, repository.type, directory);
  if (test.abilities) core.catalogue->repositories.set_abilities(id, *test.abilities);
  co_return test;
}

io::Task<StorageRefresh> refresh_storage(Core& core) {
  StorageRefresh refresh;
  const std::vector<Repository> repositories = core.catalogue->repositories.list();
  for (const Repository& repository : repositories) {
    try {
      co_await require_available(core, repository);
      co_await measure_and_keep(*core.catalogue, core.parts.home, repository);
      ++refresh.refreshed_count;
    } catch (const std::exception& failure) {
      ++refresh.failed_count;
      io::log(io::LogLevel::warning, "repository {} cannot be measured: {}", repository.id,
              failure.what());
    }
  }
  co_return refresh;
}

}  // namespace engine
