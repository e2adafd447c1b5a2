// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/repositories.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/catalogue/tables.h"
#include "engine/values/refusal.h"
#include "io/counted.h"

namespace engine {
Repository RepositoryCatalogue::insert(Repository repository, Time now) {
  repository.created_at = repository.updated_at = now;
  Tx tx(db_);
  if (Stmt(db_, "SELECT 1 FROM repository WHERE name = ?", repository.name).step()) {
    throw refusals::repository_name_taken();
  }
  if (find(repository.id)) throw refusals::repository_id_taken();
  insert_row(db_, "repository", kRepositoryTable, repository);
  tx.commit();
  return repository;
}

void RepositoryCatalogue::update(Repository repository, Time now) {
  Tx tx(db_);
  if (Stmt(db_, "SELECT 1 FROM repository WHERE name = ? AND id <> ?", repository.name,
           repository.id)
          .step()) {
    throw refusals::repository_name_taken();
  }
  repository.updated_at = now;
  if (update_row(db_, "repository", kRepositoryTable, repository, "id = ?", repository.id) == 0) {
    throw refusals::unknown_repository(repository.id);
  }
  tx.commit();
}

void RepositoryCatalogue::set_marker(const std::string& id, const std::string& marker_id) {
  write(db_, Durability::durable, "UPDATE repository SET marker_id = ? WHERE id = ?", marker_id,
        id);
}

std::optional<Repository> RepositoryCatalogue::find(std::string_view id) {
  return select_row(db_, kRepositoryTable, "FROM repository WHERE id = ?", id);
}

std::vector<Repository> RepositoryCatalogue::list(const RepositoryFilter& filter) {
  return select_rows(db_, kRepositoryTable,
                     "FROM repository WHERE (?1 IS NULL OR type = ?1) "
                     "AND (?2 IS NULL OR enabled = ?2) ORDER BY id",
                     filter.type, filter.enabled);
}

void RepositoryCatalogue::set_abilities(const std::string& id, const StorageAbilities& abilities) {
  nlohmann::ordered_json json;
  for (const StorageAbility& ability : kStorageAbilities) {
    json[std::string(ability.name)] = abilities.*ability.member;
  }
  write(db_, Durability::lazy, "UPDATE repository SET abilities = ? WHERE id = ?", json.dump(), id);
}

std::optional<StorageAbilities> RepositoryCatalogue::abilities(std::string_view id) {
  Stmt select(db_, "SELECT abilities FROM repository WHERE id = ? AND abilities <> ''", id);
  const auto json = nlohmann::json::parse(select.first<std::string>().value_or(""), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  StorageAbilities abilities;
  for (const StorageAbility& ability : kStorageAbilities) {
    abilities.*ability.member = json.value(std::string(ability.name), false);
  }
  return abilities;
}

void RepositoryCatalogue::set_storage(const std::string& id, const StorageMeasure& measure) {
  Tx tx(db_, Durability::lazy);
  update_row(db_, "repository", kStorageMeasure, measure, "id = ?", id);
  tx.commit();
}

uint64_t RepositoryCatalogue::backup_count(std::string_view id) {
  Stmt count(db_, "SELECT count(*) FROM job WHERE repository_id = ? AND state = 'completed'", id);
  return count.first<uint64_t>().value();
}

void RepositoryCatalogue::erase(const std::string& id) {
  Tx tx(db_);
  if (!find(id)) throw refusals::unknown_repository(id);
  Stmt used(db_,
            "SELECT count(*) FROM job WHERE repository_id = ? AND state IN "
            "('preparing', 'running', 'finalizing', 'completed')",
            id);
  if (const uint64_t count = used.first<uint64_t>().value(); count > 0) {
    throw refusals::repository_has_backups(
        fmt::format("{} in repository '{}' {}", io::counted(count, "backup"), id,
                    count == 1 ? "exists or runs" : "exist or run"));
  }
  Stmt(db_, "DELETE FROM job WHERE repository_id = ?", id).run();
  Stmt(db_, "DELETE FROM repository WHERE id = ?", id).run();
  tx.commit();
}

}  // namespace engine
