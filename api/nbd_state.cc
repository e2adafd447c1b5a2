// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "api/object.h"
#include "api/paging.h"
#include "api/routes.h"
#include "api/schemas.h"

/// What is being served: docs/http-api.md, "What is served over NBD".
namespace api {
namespace {

const Object<engine::ExportView>& export_object() {
  using V = engine::ExportView;
  static const Object<V> object(
      "Export", "One NBD export.",
      {{"name", "string", "", &V::name},
       {"kind", "string:ingest,point,temporary",
        "ingest: of a running backup; point: a restore point that is open", &V::kind},
       {"backup_id", "string", "", &V::backup_id},
       {"disk_id", "integer", "index", &V::disk_index},
       {"vm_name", "string", "", &V::vm_name},
       {"read_only", "boolean", "", &V::read_only},
       {"size_bytes", "integer", "", &V::size_bytes},
       {"state", "string", "of the disk", &V::state},
       {"port", "integer", "its own; 0 when reached by name only", &V::port},
       {"uris", "[string]", "", &V::uris},
       {"connections", "integer", "", &V::connections},
       {"bytes_received", "integer", "", &V::bytes_received},
       {"bytes_zeroed", "integer", "", &V::bytes_zeroed},
       {"bytes_read", "integer", "", &V::bytes_read},
       {"in_flight_bytes", "integer", "", &V::in_flight_bytes},
       {"opened_at", "time", "", &V::opened_at},
       {"last_request_at", "string", "time; empty when there was none",
        [](const V& v) { return engine::to_rfc3339(v.last_request_at); }}});
  return object;
}

const Object<Page<engine::ExportView>>& exports_object() {
  using Views = Page<engine::ExportView>;
  static const Object<Views> object(
      "ExportList", "",
      {{"exports", "[Export]", "",
        [](const Views& views) { return export_object().list(views.shown); }},
       {"count", "integer", "of this page", [](const Views& views) { return views.shown.size(); }},
       {"total", "integer", "matches before limit and offset", &Views::total}});
  return object;
}

Response exports(const Call& call) {
  using View = engine::ExportView;
  std::vector<View> found = call.engine.exports();
  keep_matching(call, "vm_name", found, [](const View& v) { return v.vm_name; });
  keep_matching(call, "backup_id", found, [](const View& v) { return v.backup_id; });
  keep_matching_word<engine::ExportKind>(call, "kind", found, [](const View& v) { return v.kind; });
  return json_response(200, exports_object().json(page_of(call, std::move(found))));
}

const Object<engine::PortAllocation>& allocation_object() {
  using A = engine::PortAllocation;
  static const Object<A> object(
      "PortAllocation", "A port of the range that serves an export.",
      {{"port", "integer", "", &A::port},
       {"job_id", "string", "", &A::job_id},
       {"vm_name", "string", "", &A::vm_name},
       {"export_name", "string", "", &A::export_name},
       {"allocated_at", "time", "", &A::allocated_at},
       {"expires_at", "time|null", "null", [](const A&) { return Json(nullptr); }}});
  return object;
}

const Object<engine::PortsStatus>& ports_object() {
  using S = engine::PortsStatus;
  static const Object<S> object(
      "PortsStatus", "",
      {{"total_ports", "integer", "", &S::total_ports},
       {"allocated", "integer", "", [](const S& s) { return s.allocations.size(); }},
       {"available", "integer", "",
        [](const S& s) {
          return s.total_ports() - std::min<size_t>(s.total_ports(), s.allocations.size());
        }},
       {"range_start", "integer", "", &S::range_start},
       {"range_end", "integer", "", &S::range_end},
       {"allocations", "[PortAllocation]", "by port",
        [](const S& s) { return allocation_object().list(s.allocations); }},
       {"blocked", "[integer]", "found taken by other programs", &S::blocked}});
  return object;
}

Response ports(const Call& call) {
  return json_response(200, ports_object().json(call.engine.ports()));
}

}  // namespace

std::vector<Schema> nbd_state_answers() {
  return schemas_of(export_object(), exports_object(), allocation_object(), ports_object());
}

const std::vector<Route>& nbd_state_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/nbd/exports",
       .operation = "listExports",
       .scope = Scope::read,
       .handler = exports,
       .summary = "Every NBD export",
       .answer = "ExportList",
       .query = {{"vm_name", "string", "as registered"},
                 {"backup_id", "string", ""},
                 {"kind", "string:ingest,point,temporary", ""},
                 kLimit,
                 kOffset},
       .failure = "failed to list exports"},
      {.method = "GET",
       .pattern = "/api/v1/nbd/ports/status",
       .operation = "getPorts",
       .scope = Scope::read,
       .handler = ports,
       .summary = "The ports of the range",
       .answer = "PortsStatus",
       .failure = "failed to get port status"},
  };
  return routes;
}

}  // namespace api
