// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/requests.h"
#include "engine/values/storage_abilities.h"
#include "engine/values/types.h"

namespace engine {

/// The repositories by id. On the catalogue's thread.
class RepositoryCatalogue {
 public:
  explicit RepositoryCatalogue(Db& db) : db_(db) {}

  /// Both times are set to `now`. Throws repository_name_taken, repository_id_taken.
  Repository insert(Repository repository, Time now);
  /// New values for what find() gave, as for the configured repository "1"; its measure stays. The
  /// same refusals, and unknown_repository.
  void update(Repository repository, Time now);

  /// What the marker file of its directory says, durable.
  void set_marker(const std::string& id, const std::string& marker_id);

  std::optional<Repository> find(std::string_view id);
  /// By id.
  std::vector<Repository> list(const RepositoryFilter& filter = {});

  /// What the repository's last test has found; nothing before the first.
  void set_abilities(const std::string& id, const StorageAbilities& abilities);
  std::optional<StorageAbilities> abilities(std::string_view id);

  void set_storage(const std::string& id, const StorageMeasure& measure);
  /// Completed jobs in it.
  uint64_t backup_count(std::string_view id);

  /// Takes its ended jobs without points along; files stay. Throws unknown_repository,
  /// repository_has_backups (also while a job runs in it).
  void erase(const std::string& id);

 private:
  Db& db_;
};

}  // namespace engine
