// SPDX-License-Identifier: Apache-2.0
#include "api/answers_setup.h"

namespace api {
namespace {

using engine::RepositoryTest;
using engine::RepositoryView;
using engine::StorageInfo;

double used_percent(const StorageInfo& storage) {
  if (storage.total_bytes == 0) return 0;
  return 100.0 * static_cast<double>(storage.used_bytes) / static_cast<double>(storage.total_bytes);
}

struct Ability {
  bool supported;
  std::string_view when_missing;
};

const Object<Ability>& ability_object() {
  static const Object<Ability> object(
      "StorageCapability", "",
      {{"supported", "boolean", "", &Ability::supported},
       {"consequence", "string?", "when it is not", [](const Ability& ability) {
          return ability.supported ? std::string_view() : ability.when_missing;
        }}});
  return object;
}

/// One member per ability; what is missing says what follows from it.
const Object<engine::StorageAbilities>& abilities_object() {
  static const Object<engine::StorageAbilities> object = [] {
    std::vector<Field<engine::StorageAbilities>> fields;
    for (const engine::StorageAbility& ability : engine::kStorageAbilities) {
      fields.push_back(
          {ability.name, "StorageCapability", ability.system_name,
           [&ability](const engine::StorageAbilities& abilities) {
             return ability_object().json({abilities.*ability.member, ability.when_missing});
           }});
    }
    return Object<engine::StorageAbilities>(
        "StorageCapabilities",
        "What the file system of a repository can do. Nothing of it is needed by every backup.",
        std::move(fields));
  }();
  return object;
}

Json config_of(const RepositoryView& view) {
  Json config = Json::parse(view.repository.config_json, nullptr, false);
  if (!config.is_object()) config = Json::object();
  config.erase("password_secret");
  return config;
}

Json last_measured(const RepositoryView& view) {
  if (!view.repository.storage) return nullptr;
  const auto& [total, used, available, measured_at] = *view.repository.storage;
  return storage_object().json(
      {view.repository.id, total, used, available, view.backup_count, measured_at});
}

template <typename T>
Json if_any(const Object<T>& object, const std::optional<T>& value) {
  return value ? object.json(*value) : Json(nullptr);
}

}  // namespace

const Object<StorageInfo>& storage_object() {
  using S = StorageInfo;
  static const Object<S> object("StorageInfo", "Space of a repository.",
                                {{"repository_id", "string", "", &S::repository_id},
                                 {"total_bytes", "integer", "", &S::total_bytes},
                                 {"used_bytes", "integer", "", &S::used_bytes},
                                 {"available_bytes", "integer", "", &S::available_bytes},
                                 {"used_percent", "number", "", used_percent},
                                 {"backup_count", "integer", "completed backups", &S::backup_count},
                                 {"last_check_at", "time", "", &S::last_check_at}});
  return object;
}

const Object<RepositoryView>& repository_object() {
  using V = RepositoryView;
  static const Object<V> object(
      "Repository", "",
      {{"id", "string", "", [](const V& v) { return v.repository.id; }},
       {"name", "string", "", [](const V& v) { return v.repository.name; }},
       {"type", "string:local,nfs,cifs,smb", "", [](const V& v) { return v.repository.type; }},
       {"enabled", "boolean", "", [](const V& v) { return v.repository.enabled; }},
       {"available", "boolean", "whether it can be used now",
        [](const V& v) { return v.unavailable_cause.empty(); }},
       {"config", "RepositoryConfig", "", config_of},
       {"is_immutable", "boolean", "", [](const V& v) { return v.repository.is_immutable; }},
       {"min_retention_days", "integer", "",
        [](const V& v) { return v.repository.min_retention_days; }},
       {"unavailable_reason", "string?", "why not", &V::unavailable_cause},
       {"storage_info", "StorageInfo?", "as last measured", last_measured},
       {"capabilities", "StorageCapabilities?", "as last tested",
        [](const V& v) { return if_any(abilities_object(), v.abilities); }},
       {"created_at", "time", "", [](const V& v) { return v.repository.created_at; }},
       {"updated_at", "time", "", [](const V& v) { return v.repository.updated_at; }}});
  return object;
}

const Object<RepositoryTest>& repository_test_object() {
  using T = RepositoryTest;
  static const Object<T> object(
      "RepositoryTest", "",
      {{"success", "boolean", "", &T::passed},
       {"message", "string", "",
        [](const T& t) {
          return t.passed ? "Repository configuration is valid and connection test passed"
                          : "Repository test failed";
        }},
       {"storage_info", "StorageInfo?", "when it works",
        [](const T& t) { return if_any(storage_object(), t.storage); }},
       {"capabilities", "StorageCapabilities?", "when it works",
        [](const T& t) { return if_any(abilities_object(), t.abilities); }},
       {"error_details", "string?", "when it does not", &T::error_details}});
  return object;
}

std::vector<Schema> repository_object_schemas() {
  return schemas_of(storage_object(), ability_object(), abilities_object(), repository_object(),
                    repository_test_object());
}

}  // namespace api
