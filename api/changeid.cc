// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>

#include "api/object.h"
#include "api/routes.h"
#include "api/schemas.h"

/// What the client copies from: the same question from both generations of it. Every value of an
/// answer is a string; anything else makes the client copy the whole disk.
/// Spec: docs/http-api.md and docs/jobs.md, "Change ids".
namespace api {
namespace {

using engine::Refusal;
using engine::RefusalKind;

uint32_t disk_index(const std::string& text) {
  uint32_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Refusal(RefusalKind::invalid, "invalid_query", "invalid disk_id",
                  "disk_id must be numeric");
  }
  return index;
}

std::string_view message_of(const engine::ChangeIdAnswer& answer, std::string_view found,
                            std::string_view none) {
  if (answer.ambiguous) return "VM name is ambiguous";
  return answer.change_id.empty() ? none : found;
}

struct ByName {
  const engine::ChangeIdQuery& query;
  engine::ChangeIdAnswer answer;
};

const Object<ByName>& by_name_object() {
  using A = ByName;
  static const Object<A> object(
      "ChangeId", "What the client copies from; every value is a string.",
      {{"vm_name", "string", "", [](const A& a) { return a.query.vm_name; }},
       {"disk_id", "string", "",
        [](const A& a) { return std::to_string(a.query.disk_id.value_or(0)); }},
       {"change_id", "string", "empty: copy everything",
        [](const A& a) { return a.answer.change_id; }},
       {"backup_job_id", "string?", "the job that recorded it",
        [](const A& a) { return a.answer.change_id.empty() ? "" : a.answer.job_id; }},
       {"message", "string", "", [](const A& a) {
          return message_of(a.answer, "Previous change_id found", "No previous backup found");
        }}});
  return object;
}

Response by_name(const Call& call) {
  engine::ChangeIdQuery query;
  query.vm_name = call.query("vm_name");
  query.repository_id = call.query("repository_id");
  const std::string disk_id = call.query("disk_id");
  if (query.vm_name.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_vm_name", "missing vm_name",
                  "vm_name query parameter is required");
  }
  if (!disk_id.empty()) query.disk_id = disk_index(disk_id);
  return json_response(200, by_name_object().json({query, call.engine.change_id(query)}));
}

struct ByPath {
  const engine::ChangeIdByPathQuery& query;
  engine::ChangeIdAnswer answer;
};

const Object<ByPath>& by_path_object() {
  using A = ByPath;
  static const Object<A> object(
      "ChangeIdByPath", "The same for client 1.0.1.",
      {{"vm_path", "string", "", [](const A& a) { return a.query.vm_path; }},
       {"disk_id", "string?", "as asked", [](const A& a) { return a.query.disk_id; }},
       {"change_id", "string", "empty: copy everything",
        [](const A& a) { return a.answer.change_id; }},
       {"message", "string", "", [](const A& a) {
          return message_of(a.answer, "Previous change ID found",
                            "No previous successful migration found");
        }}});
  return object;
}

Response by_path(const Call& call) {
  const engine::ChangeIdByPathQuery query{call.query("vm_path"), call.query("disk_id")};
  if (query.vm_path.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_vm_path_parameter", "Missing vm_path parameter",
                  "vm_path query parameter is required");
  }
  return json_response(200, by_path_object().json({query, call.engine.change_id_by_path(query)}));
}

}  // namespace

std::vector<Schema> change_id_answers() { return schemas_of(by_name_object(), by_path_object()); }

const std::vector<Route>& change_id_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/backups/changeid",
       .operation = "getChangeId",
       .scope = Scope::backup,
       .handler = by_name,
       .summary = "The change id that the next copy of a disk starts from",
       .answer = "ChangeId",
       .query = {{"vm_name", "string", "required; registered or inventory name"},
                 {"disk_id", "integer", "index; 0 when left out"},
                 {"repository_id", "string", "all when left out"}},
       .failure = "database error",
       .open_on_loopback = true},
      {.method = "GET",
       .pattern = "/api/v1/replications/changeid",
       .operation = "getChangeIdByPath",
       .scope = Scope::backup,
       .handler = by_path,
       .summary = "The same, as client 1.0.1 asks",
       .answer = "ChangeIdByPath",
       .query = {{"vm_path", "string", "required; inventory path"},
                 {"disk_id", "string", "disk- and the VMware key"}},
       .failure = "Failed to get change ID",
       .open_on_loopback = true},
  };
  return routes;
}

}  // namespace api
