#include "engine/catalogue/repositories.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/values/refusal.h"

namespace engine {
namespace {

constexpr std::string_view kColumns =
    "id, name, type, enabled, config, directory, marker_id, is_immutable, min_retention_days, "
    "total_bytes, used_bytes, available_bytes, measured_at, created_at, updated_at";

Repository take_repository(Stmt& row) {
  Repository repository;
  repository.id = row.take<std::string>();
  repository.name = row.take<std::string>();
  repository.type = from_text<RepositoryType>(row.take<std::string>()).value();
  repository.enabled = row.take<bool>();
  repository.config_json = row.take<std::string>();
  repository.directory = row.take<std::string>();
  repository.marker_id = row.take<std::string>();
  repository.is_immutable = row.take<bool>();
  repository.min_retention_days = row.take<int64_t>();
  StorageMeasure measure;
  measure.total_bytes = row.take<uint64_t>();
  measure.used_bytes = row.take<uint64_t>();
  measure.available_bytes = row.take<uint64_t>();
  if (const auto measured_at = row.take<std::optional<Time>>()) {
    measure.measured_at = *measured_at;
    repository.storage = measure;
  }
  repository.created_at = row.take<Time>();
  repository.updated_at = row.take<Time>();
  return repository;
}

}  // namespace

Repository RepositoryCatalogue::insert(Repository repository, Time now) {
  repository.created_at = repository.updated_at = now;
  Tx tx(db_);
  if (Stmt(db_, "SELECT 1 FROM repository WHERE name = ?", repository.name).step()) {
    throw refusals::repository_name_taken();
  }
  if (find(repository.id)) throw refusals::repository_id_taken();
  Stmt(db_,
       "INSERT INTO repository (id, name, type, enabled, config, directory, marker_id, "
       "is_immutable, min_retention_days, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, "
       "?, ?, ?)",
       repository.id, repository.name, repository.type, repository.enabled, repository.config_json,
       repository.directory, repository.marker_id, repository.is_immutable,
       repository.min_retention_days, now, now)
      .run();
  tx.commit();
  return repository;
}

void RepositoryCatalogue::update(const Repository& repository, Time now) {
  Tx tx(db_);
  if (Stmt(db_, "SELECT 1 FROM repository WHERE name = ? AND id <> ?", repository.name,
           repository.id)
          .step()) {
    throw refusals::repository_name_taken();
  }
  Stmt update(
      db_,
      "UPDATE repository SET name = ?, type = ?, enabled = ?, config = ?, directory = ?, "
      "marker_id = ?, is_immutable = ?, min_retention_days = ?, updated_at = ? WHERE id = ?",
      repository.name, repository.type, repository.enabled, repository.config_json,
      repository.directory, repository.marker_id, repository.is_immutable,
      repository.min_retention_days, now, repository.id);
  if (update.run() == 0) throw refusals::unknown_repository(repository.id);
  tx.commit();
}

void RepositoryCatalogue::set_marker(const std::string& id, const std::string& marker_id) {
  Tx tx(db_);
  Stmt(db_, "UPDATE repository SET marker_id = ? WHERE id = ?", marker_id, id).run();
  tx.commit();
}

std::optional<Repository> RepositoryCatalogue::find(std::string_view id) {
  Stmt select(db_, fmt::format("SELECT {} FROM repository WHERE id = ?", kColumns), id);
  if (!select.step()) return std::nullopt;
  return take_repository(select);
}

std::vector<Repository> RepositoryCatalogue::list(const RepositoryFilter& filter) {
  std::optional<std::string_view> type;
  if (filter.type) type = to_text(*filter.type);
  Stmt select(db_,
              fmt::format("SELECT {} FROM repository WHERE (?1 IS NULL OR type = ?1) "
                          "AND (?2 IS NULL OR enabled = ?2) ORDER BY id",
                          kColumns),
              type, filter.enabled);
  std::vector<Repository> repositories;
  while (select.step()) repositories.push_back(take_repository(select));
  return repositories;
}

void RepositoryCatalogue::set_abilities(const std::string& id, const StorageAbilities& abilities) {
  nlohmann::ordered_json json;
  for (const StorageAbility& ability : kStorageAbilities) {
    json[std::string(ability.name)] = abilities.*ability.member;
  }
  Tx tx(db_, Durability::lazy);
  Stmt(db_, "UPDATE repository SET abilities = ? WHERE id = ?", json.dump(), id).run();
  tx.commit();
}

std::optional<StorageAbilities> RepositoryCatalogue::abilities(std::string_view id) {
  Stmt select(db_, "SELECT abilities FROM repository WHERE id = ? AND abilities <> ''", id);
  if (!select.step()) return std::nullopt;
  const auto json = nlohmann::json::parse(select.take<std::string>(), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  StorageAbilities abilities;
  for (const StorageAbility& ability : kStorageAbilities) {
    abilities.*ability.member = json.value(std::string(ability.name), false);
  }
  return abilities;
}

void RepositoryCatalogue::set_storage(const std::string& id, const StorageMeasure& measure) {
  Tx tx(db_, Durability::lazy);
  Stmt(db_,
       "UPDATE repository SET total_bytes = ?, used_bytes = ?, available_bytes = ?, "
       "measured_at = ? WHERE id = ?",
       measure.total_bytes, measure.used_bytes, measure.available_bytes, measure.measured_at, id)
      .run();
  tx.commit();
}

uint64_t RepositoryCatalogue::backup_count(std::string_view id) {
  Stmt count(db_, "SELECT count(*) FROM job WHERE repository_id = ? AND state = 'completed'", id);
  count.step();
  return count.take<uint64_t>();
}

void RepositoryCatalogue::erase(const std::string& id) {
  Tx tx(db_);
  if (!find(id)) throw refusals::unknown_repository(id);
  Stmt used(db_,
            "SELECT count(*) FROM job WHERE repository_id = ? AND state IN "
            "('preparing', 'running', 'finalizing', 'completed')",
            id);
  used.step();
  if (const auto count = used.take<uint64_t>(); count > 0) {
    throw refusals::repository_has_backups(
        fmt::format("{} backups in repository '{}' exist or run", count, id));
  }
  Stmt(db_, "DELETE FROM job WHERE repository_id = ?", id).run();
  Stmt(db_, "DELETE FROM repository WHERE id = ?", id).run();
  tx.commit();
}

}  // namespace engine
