// SPDX-License-Identifier: Apache-2.0
#include "api/answers_signals.h"
#include "api/object.h"
#include "api/routes.h"
#include "api/schemas.h"
#include "engine/values/point_name.h"

/// Restore points and where they are read: docs/http-api.md, "Restore points".
namespace api {
namespace {

constexpr uint64_t kPointsMax = 10000;
constexpr uint64_t kRangesMax = 100000;

const Object<engine::PointView>& served_point_object() {
  using P = engine::PointView;
  static const Object<P> object(
      "Point", "A restore point of one disk, served over NBD by name.",
      {{"backup_id", "string", "", [](const P& p) { return p.point.job_id; }},
       {"vm_name", "string", "as registered", [](const P& p) { return p.point.vm_name; }},
       {"disk_id", "integer", "index", [](const P& p) { return p.point.disk_index; }},
       {"backup_type", "string:full,incremental,differential", "full if the image stands alone",
        [](const P& p) { return p.point.type; }},
       {"repository_id", "string", "", [](const P& p) { return p.point.repository_id; }},
       {"completed_at", "time", "", [](const P& p) { return p.point.completed_at; }},
       {"size_bytes", "integer", "of the disk", [](const P& p) { return p.point.capacity_bytes; }},
       {"bytes_received", "integer", "payload of WRITE when it was made",
        [](const P& p) { return p.point.counters.bytes_received; }},
       {"bytes_stored", "integer", "data in this point's file, without its tables",
        [](const P& p) { return p.point.bytes_stored; }},
       {"allocated_bytes", "integer", "space of this point's file",
        [](const P& p) { return p.point.allocated_bytes; }},
       {"change_id", "string", "", [](const P& p) { return p.point.change_id; }},
       {"verified_at", "time|null", "of this image's last verification; null: never",
        [](const P& p) { return p.point.verified_at; }},
       {"verification", "string:sound,damaged,without_manifest?", "its result",
        [](const P& p) { return p.point.verification; }},
       {"locked", "boolean", "true: the rules of its repository forbid to delete it now",
        [](const P& p) { return p.lock.is_locked; }},
       {"locked_until", "time|null", "until when they do; null: not locked, or for good",
        [](const P& p) { return p.lock.until; }},
       {"signals", "Signals", "what this backup looks like",
        [](const P& p) { return signals_object().json(signals_of_point(p.point)); }},
       {"generation", "integer", "of the chain",
        [](const P& p) { return p.point.place.generation; }},
       {"position", "integer", "in the chain; 0 is the full",
        [](const P& p) { return p.point.place.position; }},
       {"file_path", "string", "", [](const P& p) { return p.point.image_path; }},
       {"export_name", "string", "", &P::export_name},
       {"uris", "[string]", "where NBD clients read it", &P::uris}});
  return object;
}

const Object<std::vector<engine::PointView>>& points_object() {
  using Views = std::vector<engine::PointView>;
  static const Object<Views> object(
      "PointList", "Restore points, newest first.",
      {{"points", "[Point]", "",
        [](const Views& views) { return served_point_object().list(views); }},
       {"count", "integer", "", &Views::size}});
  return object;
}

Response list_points(const Call& call) {
  engine::PointQuery query;
  query.vm_name = call.query("vm_name");
  query.point = call.query("point");
  if (const auto disk = call.query_number("disk_id", UINT32_MAX)) {
    query.disk_id = static_cast<uint32_t>(*disk);
  }
  if (!query.point.empty() && query.point != engine::kLatestPoint && query.vm_name.empty()) {
    throw engine::Refusal(engine::RefusalKind::invalid, "missing_field", "point needs vm_name");
  }
  query.limit = call.query_number("limit", kPointsMax).value_or(query.limit);
  query.offset = call.query_number("offset", INT64_MAX).value_or(0);
  return json_response(200, points_object().json(call.engine.points(query)));
}

const Object<engine::ChangesView::Range>& range_object() {
  using R = engine::ChangesView::Range;
  static const Object<R> object(
      "ChangedRange", "",
      {{"offset", "integer", "bytes", &R::offset},
       {"length", "integer", "bytes", &R::length},
       {"zero", "boolean", "reads as zeroes in the newer point", &R::zero}});
  return object;
}

const Object<engine::ChangesView>& changes_object() {
  using V = engine::ChangesView;
  static const Object<V> object(
      "Changes", "What differs between two points of a disk, or a part of it.",
      {{"backup_id", "string", "the newer point", &V::backup_id},
       {"since", "string", "the older one", &V::since},
       {"disk_id", "integer", "index", &V::disk_index},
       {"size_bytes", "integer", "of the newer point", &V::size_bytes},
       {"ranges", "[ChangedRange]", "ascending",
        [](const V& v) { return range_object().list(v.ranges); }},
       {"count", "integer", "ranges here", [](const V& v) { return v.ranges.size(); }},
       {"bytes", "integer", "in these ranges", &V::bytes},
       {"next_offset", "integer|null", "where the next page begins; null after the last one",
        &V::next_offset}});
  return object;
}

Response changes(const Call& call) {
  engine::ChangesQuery query;
  query.backup_id = call.variable("backup_id");
  query.since = call.query("since");
  if (query.since.empty()) {
    throw engine::Refusal(engine::RefusalKind::invalid, "missing_field", "since is required");
  }
  query.disk_id = static_cast<uint32_t>(call.query_number("disk_id", UINT32_MAX).value_or(0));
  query.offset = call.query_number("offset", INT64_MAX).value_or(0);
  query.limit = call.query_number("limit", kRangesMax).value_or(query.limit);
  if (query.limit == 0) throw Call::invalid_query("limit");
  return json_response(200, changes_object().json(call.engine.changes(query)));
}

}  // namespace

std::vector<Schema> point_answers() {
  return schemas_of(served_point_object(), points_object(), range_object(), changes_object());
}

const std::vector<Route>& point_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/points",
       .operation = "listPoints",
       .scope = Scope::read,
       .handler = list_points,
       .summary = "Restore points and the NBD exports that they are read by, newest first",
       .answer = "PointList",
       .query = {{"vm_name", "string", "as registered; all when left out"},
                 {"disk_id", "integer", "index; all when left out"},
                 {"point", "string",
                  "backup id, latest (of every VM when none is named), or the newest until an RFC "
                  "3339 time"},
                 {"limit", "integer", "1000 when left out"},
                 {"offset", "integer", ""}},
       .failure = "failed to list points"},
      {.method = "GET",
       .pattern = "/api/v1/backups/{backup_id}/changes",
       .operation = "listChanges",
       .scope = Scope::read,
       .handler = changes,
       .summary = "What differs from an older point of the same disk",
       .answer = "Changes",
       .query = {{"since", "string", "required; the older backup's id"},
                 {"disk_id", "integer", "index; 0 when left out"},
                 {"offset", "integer", "next_offset of the page before; bytes"},
                 {"limit", "integer", "ranges; 10000 when left out"}},
       .failure = "failed to compare points",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
