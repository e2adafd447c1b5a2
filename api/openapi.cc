// SPDX-License-Identifier: Apache-2.0
#include "api/openapi.h"

#include <nlohmann/json.hpp>
#include <string>

#include "api/schema.h"
#include "api/url.h"

namespace api {
namespace {

// "/api/v1/vm-contexts/{vm}/disks" is of vm-contexts, "/health" of the service itself.
std::string tag_of(const Route& route) {
  constexpr std::string_view kBase = "/api/v1/";
  std::string_view rest = route.pattern;
  if (!rest.starts_with(kBase) || route.instant) return "service";
  rest.remove_prefix(kBase.size());
  return std::string(rest.substr(0, rest.find('/')));
}

Json content(std::string_view media_type, Json schema) {
  Json described = Json::object();
  described[std::string(media_type)] = {{"schema", std::move(schema)}};
  return described;
}

// "/api/v1/backups/{backup_id}" has backup_id.
std::vector<std::string> variables_of(std::string_view pattern) {
  std::vector<std::string> names;
  for (size_t open; (open = pattern.find('{')) != pattern.npos;) {
    const size_t close = pattern.find('}', open);
    names.emplace_back(pattern.substr(open + 1, close - open - 1));
    pattern.remove_prefix(close + 1);
  }
  return names;
}

Json parameter(std::string_view name, const char* in, std::string_view type,
               std::string_view about) {
  const bool in_path = in == std::string_view("path");
  Json described = {{"name", name},
                    {"in", in},
                    {"required", in_path || about.starts_with("required")},
                    {"schema", json_schema_of(type)}};
  if (!about.empty()) described["description"] = about;
  return described;
}

Json success(const Route& route) {
  Json answer = {{"description", "Success"}};
  if (!route.answer.empty()) {
    answer["content"] = content("application/json", json_schema_of(route.answer));
  } else if (route.goes_on || route.pattern == "/metrics") {
    const char* const type = route.goes_on ? "text/event-stream" : "text/plain";
    answer["content"] = content(type, {{"type", "string"}});
  } else {
    answer["content"] = content("application/json", {{"type", "object"}});
  }
  return answer;
}

Json responses(const Route& route) {
  Json all = Json::object();
  all[std::to_string(route.status)] = success(route);
  if (route.method == "PUT") all["200"] = success(route);  // created is 201, replaced is 200
  if (route.pattern == "/readyz") all["503"] = success(route);
  if (route.method == "GET" && !route.instant && !route.goes_on) {
    all["304"] = {{"description", "If-None-Match names the ETag of what would be sent"}};
  }
  const Json problem = content("application/problem+json", json_schema_of("Problem"));
  all["4XX"] = {{"description", "Refusal"}, {"content", problem}};
  all["default"] = {{"description", "Failure"}, {"content", problem}};
  return all;
}

Json operation(const Route& route) {
  Json described = {{"operationId", route.operation},
                    {"summary", route.summary},
                    {"tags", Json::array({tag_of(route)})}};
  Json parameters = Json::array();
  for (const auto& name : variables_of(route.pattern)) {
    parameters.push_back(parameter(name, "path", "string", ""));
  }
  for (const auto& [name, type, about] : route.query) {
    parameters.push_back(parameter(name, "query", type, about));
  }
  if (!parameters.empty()) described["parameters"] = std::move(parameters);
  if (!route.body.empty()) {
    described["requestBody"] = {
        {"required", !route.body_may_be_left_out},
        {"content", content("application/json", json_schema_of(route.body))}};
  }
  described["responses"] = responses(route);
  // An empty requirement beside the token: on loopback none is asked for.
  const Scope scope = route.scope.value_or(Scope::admin);
  Json security = Json::array({{{"token", Json::array({to_text(scope)})}}});
  if (route.open_on_loopback) security.push_back(Json::object());
  described["security"] = std::move(security);
  return described;
}

}  // namespace

Json openapi_document(std::span<const Route> routes, std::string_view version) {
  Json paths = Json::object();
  for (const Route& route : routes) {
    if (route.is_page) continue;
    paths[std::string(route.pattern)][in_lower_case(route.method)] = operation(route);
  }
  Json schemas = Json::object();
  for (const Schema& schema : all_schemas()) {
    schemas[std::string(schema.name)] = json_schema_of(schema);
  }
  const Json token = {
      {"type", "http"},
      {"scheme", "bearer"},
      {"description",
       "Needed only when there are tokens. Beside it stands the scope that the token "
       "must have; `backup` and `restore` include `read`, `admin` includes all."}};
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "varve"},
        {"version", version},
        {"description",
         "Backups of VMs over NBD into QCOW2 chains. Sizes are bytes and times UTC "
         "unless a name says otherwise. HEAD is answered wherever GET is; answers to GET carry an "
         "ETag, and 304 answers If-None-Match."},
        {"license", {{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}},
      {"servers", Json::array({{{"url", "/"}, {"description", "where this document comes from"}}})},
      {"paths", std::move(paths)},
      {"components", {{"schemas", std::move(schemas)}, {"securitySchemes", {{"token", token}}}}},
  };
}

}  // namespace api
