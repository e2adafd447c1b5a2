#include <nlohmann/json.hpp>

#include "api/json_setup.h"
#include "api/read_member.h"
#include "engine/values/refusal.h"
#include "engine/values/repository_config.h"
#include "engine/values/time_text.h"

namespace api {
namespace {

namespace refusals = engine::refusals;

double used_percent(const engine::StorageInfo& storage) {
  if (storage.total_bytes == 0) return 0;
  return 100.0 * static_cast<double>(storage.used_bytes) / static_cast<double>(storage.total_bytes);
}

// An id stands in paths and file names.
bool is_usable_id(std::string_view id) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return id.size() <= 64 && id.find_first_not_of(kAllowed) == id.npos;
}

engine::Refusal invalid_member(const std::string& cause) {
  return {engine::RefusalKind::invalid, "invalid_body", "Invalid request body: " + cause, cause};
}

}  // namespace

Json to_json(const engine::StorageInfo& storage) {
  return {
      {"repository_id", storage.repository_id},
      {"total_bytes", storage.total_bytes},
      {"used_bytes", storage.used_bytes},
      {"available_bytes", storage.available_bytes},
      {"used_percent", used_percent(storage)},
      {"backup_count", storage.backup_count},
      {"last_check_at", engine::to_rfc3339(storage.last_check_at)},
  };
}

/// One member per ability; what is missing says what follows from it.
Json to_json(const engine::StorageAbilities& abilities) {
  Json json = Json::object();
  for (const engine::StorageAbility& ability : engine::kStorageAbilities) {
    Json& member = json[std::string(ability.name)];
    member["supported"] = abilities.*ability.member;
    if (!(abilities.*ability.member)) member["consequence"] = ability.when_missing;
  }
  return json;
}

Json to_json(const engine::RepositoryView& view) {
  const engine::Repository& repository = view.repository;
  Json config = Json::parse(repository.config_json, nullptr, false);
  if (!config.is_object()) config = Json::object();
  config.erase("password_secret");
  Json json = {
      {"id", repository.id},
      {"name", repository.name},
      {"type", to_text(repository.type)},
      {"enabled", repository.enabled},
      {"available", view.unavailable_cause.empty()},
      {"config", std::move(config)},
      {"is_immutable", repository.is_immutable},
      {"min_retention_days", repository.min_retention_days},
  };
  if (!view.unavailable_cause.empty()) json["unavailable_reason"] = view.unavailable_cause;
  if (repository.storage) {
    const auto& [total, used, available, measured_at] = *repository.storage;
    json["storage_info"] = to_json(
        engine::StorageInfo{repository.id, total, used, available, view.backup_count, measured_at});
  }
  if (view.abilities) json["capabilities"] = to_json(*view.abilities);
  json["created_at"] = engine::to_rfc3339(repository.created_at);
  json["updated_at"] = engine::to_rfc3339(repository.updated_at);
  return json;
}

Json to_json(const engine::RepositoryTest& test) {
  if (!test.passed) {
    return {{"success", false},
            {"message", "Repository test failed"},
            {"error_details", test.error_details}};
  }
  Json json = {{"success", true},
               {"message", "Repository configuration is valid and connection test passed"}};
  if (test.storage) json["storage_info"] = to_json(*test.storage);
  if (test.abilities) json["capabilities"] = to_json(*test.abilities);
  return json;
}

engine::NewRepository repository_to_test(const InputJson& body) {
  engine::NewRepository request;
  const std::string type = text_member(body, "type");
  if (type.empty()) throw refusals::repository_type_missing();
  const auto known = engine::from_text<engine::RepositoryType>(type);
  if (!known) throw refusals::repository_type_unsupported(type);
  request.type = *known;
  const InputJson* config = member(body, "config");
  auto [json, directory] =
      engine::check_repository_config(request.type, config ? config->dump() : "{}");
  request.config_json = std::move(json);
  request.directory = std::move(directory);
  return request;
}

engine::NewRepository new_repository(const InputJson& body) {
  const std::string name = text_member(body, "name"), id = text_member(body, "id");
  if (name.empty()) throw refusals::repository_name_missing();
  engine::NewRepository request = repository_to_test(body);
  request.name = name;
  request.id = id;
  if (!is_usable_id(id)) {
    throw invalid_member("id must have at most 64 letters, digits, '.', '_' and '-'");
  }
  request.enabled = bool_member(body, "enabled").value_or(true);
  request.is_immutable = bool_member(body, "is_immutable").value_or(false);
  const auto days = integer_member(body, "min_retention_days").value_or(0);
  if (days < 0 || days > 36500) throw invalid_member("min_retention_days must be 0 to 36500");
  request.min_retention_days = days;
  return request;
}

}  // namespace api
