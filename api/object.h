// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "api/json.h"
#include "api/schema.h"
#include "engine/values/time_text.h"

/// How values of the engine are written: times as RFC 3339, enumerators as their words, what is
/// missing as null.
namespace nlohmann {

template <>
struct adl_serializer<engine::Time> {
  static void to_json(api::Json& json, engine::Time time) { json = engine::to_rfc3339(time); }
};

template <typename T>
struct adl_serializer<std::optional<T>> {
  static void to_json(api::Json& json, const std::optional<T>& value) {
    json = value ? api::Json(*value) : api::Json(nullptr);
  }
};

template <typename Enum>
requires(std::is_enum_v<Enum> && !engine::kWords<Enum>.empty()) struct adl_serializer<Enum> {
  static void to_json(api::Json& json, Enum value) { json = engine::to_text(value); }
};

}  // namespace nlohmann

namespace api {

/// A member of an answer: its place in the schema (api/schema.h says what `type` may be), and where
/// its value comes from. That is anything that std::invoke takes, a pointer to a member too.
template <typename T>
struct Field {
  std::string_view name, type, about;
  std::function<Json(const T&)> value;
};

/// Sets the member, as its type says: what may be left out is left out when it is null, "" or has
/// no elements, and what may be null is null then.
void put_member(Json& object, const Member& member, Json value);

/// An object of the answers, described once: the JSON of a T and the schema in /openapi.json are
/// both made of one table. Immutable; usable on any thread.
template <typename T>
class Object {
 public:
  Object(std::string_view name, std::string_view about, std::vector<Field<T>> fields)
      : name_(name), about_(about), fields_(std::move(fields)) {}

  Json json(const T& of) const {
    Json object = Json::object();
    for (const auto& [name, type, about, value] : fields_) {
      put_member(object, {name, type, about}, value(of));
    }
    return object;
  }

  /// An array with the object of each element of `range`.
  template <typename Range>
  Json list(const Range& range) const {
    Json array = Json::array();
    for (const auto& element : range) array.push_back(json(element));
    return array;
  }

  const std::vector<Field<T>>& fields() const { return fields_; }

  Schema schema() const {
    Schema schema{name_, about_, {}};
    for (const auto& [name, type, about, value] : fields_) {
      schema.members.push_back({name, type, about});
    }
    return schema;
  }

 private:
  std::string_view name_, about_;
  std::vector<Field<T>> fields_;
};

template <typename... Ts>
std::vector<Schema> schemas_of(const Object<Ts>&... objects) {
  return {objects.schema()...};
}

}  // namespace api
