// SPDX-License-Identifier: Apache-2.0
#include "api/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/object.h"
#include "api/schemas.h"

namespace api {
namespace {

bool is_reference(std::string_view type) { return type[0] >= 'A' && type[0] <= 'Z'; }

std::string_view without_option(std::string_view type) {
  if (is_optional(type)) type.remove_suffix(1);
  return type;
}

// The type inside "[T]" or "{T}".
std::string_view inner(std::string_view type) { return type.substr(1, type.size() - 2); }

constexpr std::string_view kOrNull = "|null";
constexpr std::string_view kWords = "string:";

// A basic type as a sentence names it.
std::string in_words(std::string_view type) {
  if (type == "texts") return "a string or an array of strings";
  if (type == "time" || type.starts_with(kWords)) return "a string";
  return fmt::format("{} {}", type == "integer" || type == "object" ? "an" : "a", type);
}

std::optional<std::string> value_mismatch(const InputJson& value, std::string_view type,
                                          const std::string& where);

std::optional<std::string> object_mismatch(const InputJson& value, const Schema& schema,
                                           const std::string& where) {
  if (!value.is_object()) {
    return where.empty() ? "the body must be an object"
                         : fmt::format("member '{}' must be an object", where);
  }
  for (const Member& member : schema.members) {
    const auto found = value.find(member.name);
    if (found == value.end()) continue;
    const std::string path =
        where.empty() ? std::string(member.name) : fmt::format("{}.{}", where, member.name);
    if (auto mismatch = value_mismatch(*found, without_option(member.type), path)) return mismatch;
  }
  return std::nullopt;
}

bool is_texts(const InputJson& value) {
  return value.is_string() ||
         (value.is_array() && std::all_of(value.begin(), value.end(),
                                          [](const InputJson& item) { return item.is_string(); }));
}

bool has_basic_type(const InputJson& value, std::string_view type) {
  if (type == "texts") return is_texts(value);
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  return value.is_string();  // string, time
}

std::optional<std::string> value_mismatch(const InputJson& value, std::string_view type,
                                          const std::string& where) {
  if (value.is_null()) return std::nullopt;
  if (type.ends_with(kOrNull)) type.remove_suffix(kOrNull.size());
  if (is_reference(type)) return object_mismatch(value, *find_schema(type), where);
  if (type[0] == '[') {
    if (!value.is_array()) return fmt::format("member '{}' must be an array", where);
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string path = fmt::format("{}[{}]", where, i);
      if (value[i].is_null()) return fmt::format("member '{}' must not be null", path);
      if (auto mismatch = value_mismatch(value[i], inner(type), path)) return mismatch;
    }
    return std::nullopt;
  }
  if (type[0] == '{') {
    if (!value.is_object()) return fmt::format("member '{}' must be an object", where);
    for (const auto& [key, item] : value.items()) {
      const std::string path = fmt::format("{}.{}", where, key);
      if (item.is_null()) return fmt::format("member '{}' must not be null", path);
      if (auto mismatch = value_mismatch(item, inner(type), path)) return mismatch;
    }
    return std::nullopt;
  }
  if (has_basic_type(value, type)) return std::nullopt;
  return fmt::format("member '{}' must be {}", where, in_words(type));
}

}  // namespace

std::span<const Schema> all_schemas() {
  static const std::vector<Schema> all = [] {
    std::vector<Schema> joined;
    for (const auto part :
         {request_schemas, problem_schemas, backup_answers, point_answers, restore_answers,
          verification_answers, wanted_answers, change_id_answers, telemetry_answers,
          repository_answers, vm_context_answers, nbd_state_answers, service_answers}) {
      for (Schema& schema : part()) joined.push_back(std::move(schema));
    }
    return joined;
  }();
  return all;
}

const Schema* find_schema(std::string_view name) {
  const auto schemas = all_schemas();
  const auto found = std::find_if(schemas.begin(), schemas.end(),
                                  [name](const Schema& schema) { return schema.name == name; });
  return found == schemas.end() ? nullptr : &*found;
}

bool is_optional(std::string_view type) { return type.ends_with('?'); }

Json json_schema_of(std::string_view type) {
  type = without_option(type);
  if (type.ends_with(kOrNull)) {
    Json schema = json_schema_of(type.substr(0, type.size() - kOrNull.size()));
    if (!schema.contains("type")) return {{"anyOf", {schema, {{"type", "null"}}}}};
    schema["type"] = {schema["type"], "null"};
    return schema;
  }
  if (is_reference(type)) return {{"$ref", fmt::format("#/components/schemas/{}", type)}};
  if (type[0] == '[') return {{"type", "array"}, {"items", json_schema_of(inner(type))}};
  if (type[0] == '{') {
    return {{"type", "object"}, {"additionalProperties", json_schema_of(inner(type))}};
  }
  if (type.starts_with(kWords)) {
    Json words = Json::array();
    for (std::string_view rest = type.substr(kWords.size()); !rest.empty();) {
      const size_t end = std::min(rest.find(','), rest.size());
      words.push_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return {{"type", "string"}, {"enum", words}};
  }
  if (type == "texts") return {{"anyOf", {json_schema_of("string"), json_schema_of("[string]")}}};
  if (type == "time") return {{"type", "string"}, {"format", "date-time"}};
  return {{"type", type}};
}

Json json_schema_of(const Schema& schema) {
  Json properties = Json::object(), required = Json::array();
  for (const Member& member : schema.members) {
    Json property = json_schema_of(member.type);
    if (!member.about.empty()) property["description"] = member.about;
    properties[std::string(member.name)] = std::move(property);
    if (!is_optional(member.type)) required.push_back(member.name);
  }
  Json described = {{"type", "object"}, {"description", schema.about}, {"properties", properties}};
  if (!required.empty()) described["required"] = required;
  return described;
}

std::optional<std::string> type_mismatch(const InputJson& value, const Schema& schema) {
  return object_mismatch(value, schema, "");
}

void put_member(Json& object, const Member& member, Json value) {
  const bool none = value.is_null() || (value.is_structured() && value.empty()) ||
                    (value.is_string() && value.get_ref<const std::string&>().empty());
  if (none && is_optional(member.type)) return;
  if (none && member.type.ends_with(kOrNull)) value = nullptr;
  object[std::string(member.name)] = std::move(value);
}

std::string text_of(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace api
