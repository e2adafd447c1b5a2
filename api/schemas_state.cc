#include <algorithm>

#include "api/schemas.h"

namespace api {

/// Spec: docs/http-api.md, "What is served over NBD", "The service itself".
const std::vector<Schema>& state_schemas() {
  static const std::vector<Schema> schemas = {
      {"Export",
       "One NBD export.",
       {{"name", "string", ""},
        {"kind", "string:ingest,point,temporary",
         "ingest: of a running backup; the others not yet"},
        {"backup_id", "string", ""},
        {"disk_id", "integer", "index"},
        {"vm_name", "string", ""},
        {"read_only", "boolean", ""},
        {"size_bytes", "integer", ""},
        {"state", "string", "of the disk"},
        {"port", "integer", "its own; 0 when reached by name only"},
        {"uris", "[string]", ""},
        {"connections", "integer", ""},
        {"bytes_received", "integer", ""},
        {"bytes_zeroed", "integer", ""},
        {"bytes_read", "integer", ""},
        {"in_flight_bytes", "integer", ""},
        {"opened_at", "time", ""},
        {"last_request_at", "string", "time; empty when there was none"}}},
      {"ExportList", "", {{"exports", "[Export]", ""}, {"count", "integer", ""}}},
      {"PortAllocation",
       "A port of the range that serves an export.",
       {{"port", "integer", ""},
        {"job_id", "string", ""},
        {"vm_name", "string", ""},
        {"export_name", "string", ""},
        {"allocated_at", "time", ""},
        {"expires_at", "time|null", "null"}}},
      {"PortsStatus",
       "",
       {{"total_ports", "integer", ""},
        {"allocated", "integer", ""},
        {"available", "integer", ""},
        {"range_start", "integer", ""},
        {"range_end", "integer", ""},
        {"allocations", "[PortAllocation]", "by port"},
        {"blocked", "[integer]", "found taken by other programs"}}},
      {"Health",
       "",
       {{"service", "string:varve", ""},
        {"status", "string:healthy,unhealthy", ""},
        {"timestamp", "time", ""},
        {"version", "string", ""},
        {"database", "string:connected,disconnected", ""}}},
      {"Alive", "", {{"status", "string:alive", ""}}},
      {"Readiness",
       "",
       {{"status", "string:ready,not ready", ""},
        {"checks", "{boolean}?", "which condition is not met, when not ready"},
        {"unavailable_repositories", "{string}?", "why they cannot be used, by id"}}},
  };
  return schemas;
}

std::span<const Schema> all_schemas() {
  static const std::vector<Schema> all = [] {
    std::vector<Schema> joined;
    for (const auto* part : {&backup_schemas(), &setup_schemas(), &state_schemas()}) {
      joined.insert(joined.end(), part->begin(), part->end());
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

}  // namespace api
