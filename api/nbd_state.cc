#include <nlohmann/json.hpp>

#include "api/routes.h"
#include "engine/values/time_text.h"

/// What is being served: docs/http-api.md, "What is served over NBD".
namespace api {
namespace {

using engine::to_rfc3339;

std::string_view word(engine::ExportKind kind) {
  switch (kind) {
    case engine::ExportKind::ingest:
      return "ingest";
    case engine::ExportKind::point:
      return "point";
    case engine::ExportKind::temporary:
      break;
  }
  return "temporary";
}

Json to_json(const engine::ExportView& view) {
  return {
      {"name", view.name},
      {"kind", word(view.kind)},
      {"backup_id", view.backup_id},
      {"disk_id", view.disk_index},
      {"vm_name", view.vm_name},
      {"read_only", view.read_only},
      {"size_bytes", view.size_bytes},
      {"state", view.state},
      {"port", view.port},
      {"uris", view.uris},
      {"connections", view.connections},
      {"bytes_received", view.bytes_received},
      {"bytes_zeroed", view.bytes_zeroed},
      {"bytes_read", view.bytes_read},
      {"in_flight_bytes", view.in_flight_bytes},
      {"opened_at", to_rfc3339(view.opened_at)},
      {"last_request_at", to_rfc3339(view.last_request_at)},
  };
}

Response exports(const Call& call) {
  Json exports = Json::array();
  for (const auto& view : call.engine.exports()) exports.push_back(to_json(view));
  const size_t count = exports.size();
  return json_response(200, {{"exports", std::move(exports)}, {"count", count}});
}

Response ports(const Call& call) {
  const engine::PortsStatus status = call.engine.ports();
  Json allocations = Json::array();
  for (const auto& allocation : status.allocations) {
    allocations.push_back({{"port", allocation.port},
                           {"job_id", allocation.job_id},
                           {"vm_name", allocation.vm_name},
                           {"export_name", allocation.export_name},
                           {"allocated_at", to_rfc3339(allocation.allocated_at)},
                           {"expires_at", nullptr}});
  }
  const uint64_t allocated = status.allocations.size();
  const uint64_t total = status.total_ports();
  return json_response(200, {{"total_ports", total},
                             {"allocated", allocated},
                             {"available", total > allocated ? total - allocated : 0},
                             {"range_start", status.range_start},
                             {"range_end", status.range_end},
                             {"allocations", std::move(allocations)},
                             {"blocked", status.blocked}});
}

}  // namespace

const std::vector<Route>& nbd_state_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/nbd/exports",
       .handler = exports,
       .summary = "Every NBD export",
       .answer = "ExportList",
       .failure = "failed to list exports"},
      {.method = "GET",
       .pattern = "/api/v1/nbd/ports/status",
       .handler = ports,
       .summary = "The ports of the range",
       .answer = "PortsStatus",
       .failure = "failed to get port status"},
  };
  return routes;
}

}  // namespace api
