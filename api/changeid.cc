#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "api/routes.h"

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
  const engine::ChangeIdAnswer answer = call.engine.change_id(query);
  Json body = {{"vm_name", query.vm_name},
               {"disk_id", std::to_string(query.disk_id.value_or(0))},
               {"change_id", answer.change_id}};
  if (!answer.change_id.empty() && !answer.job_id.empty()) body["backup_job_id"] = answer.job_id;
  body["message"] = message_of(answer, "Previous change_id found", "No previous backup found");
  return json_response(200, body);
}

Response by_path(const Call& call) {
  const engine::ChangeIdByPathQuery query{call.query("vm_path"), call.query("disk_id")};
  if (query.vm_path.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_vm_path_parameter", "Missing vm_path parameter",
                  "vm_path query parameter is required");
  }
  const engine::ChangeIdAnswer answer = call.engine.change_id_by_path(query);
  Json body = {{"vm_path", query.vm_path}};
  if (!query.disk_id.empty()) body["disk_id"] = query.disk_id;
  body["change_id"] = answer.change_id;
  body["message"] =
      message_of(answer, "Previous change ID found", "No previous successful migration found");
  return json_response(200, body);
}

}  // namespace

const std::vector<Route>& change_id_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/backups/changeid",
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
