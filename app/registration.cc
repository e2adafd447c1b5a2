// SPDX-License-Identifier: Apache-2.0
#include "app/registration.h"

#include <string_view>

#include "api/schema.h"

namespace app {
namespace {

/// What `known` has of the members of that body. What may be null stays as it is when left out.
nlohmann::json body_again(const nlohmann::json& known, std::string_view schema) {
  nlohmann::json again = nlohmann::json::object();
  for (const api::Member& member : api::find_schema(schema)->members) {
    const std::string name(member.name);
    const bool stays = member.type.find("|null") != std::string_view::npos;
    const bool is_list = member.type.starts_with('[');
    if (stays || is_list || !known.contains(name) || known[name].is_null()) continue;
    again[name] = known[name];
  }
  return again;
}

}  // namespace

nlohmann::json registered_again(const nlohmann::json& disk) {
  return body_again(disk, "NewVmDisk");
}

nlohmann::json context_again(const nlohmann::json& context) {
  return body_again(context, "PutVmContext");
}

}  // namespace app
