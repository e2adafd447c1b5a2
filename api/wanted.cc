// SPDX-License-Identifier: Apache-2.0
#include "api/object.h"
#include "api/routes.h"
#include "api/schemas.h"

/// What damage the newest points of a VM have: docs/http-api.md, "Verification".
namespace api {
namespace {

const Object<engine::WantedRange>& wanted_range_object() {
  using R = engine::WantedRange;
  static const Object<R> object(
      "WantedRange", "Damaged clusters of the newest point.",
      {{"offset", "integer", "bytes of the disk", &R::offset},
       {"length", "integer", "whole clusters, but for the end of the disk", &R::length},
       {"zero", "boolean", "they were sent as zeroes", &R::zero},
       {"sums", "[string]?",
        "of each cluster, the XXH3-128 of what was sent, in its canonical order of bytes, in "
        "hexadecimal digits; neither zero nor sums: no manifest says what was sent",
        &R::sums}});
  return object;
}

const Object<engine::WantedDisk>& wanted_disk_object() {
  using D = engine::WantedDisk;
  static const Object<D> object(
      "WantedDisk", "What the newest point of a disk lacks.",
      {{"disk_id", "integer", "index", &D::disk_index},
       {"backup_id", "string", "of its newest point", &D::backup_id},
       {"change_id", "string", "of that point", &D::change_id},
       {"size_bytes", "integer", "of the disk in that point", &D::size_bytes},
       {"cluster_bytes", "integer", "", &D::cluster_bytes},
       {"ranges", "[WantedRange]", "ascending",
        [](const D& d) { return wanted_range_object().list(d.ranges); }},
       {"bytes", "integer", "in these ranges", &D::bytes},
       {"complete", "boolean", "false: more may be damaged than the ranges name", &D::complete}});
  return object;
}

const Object<engine::DamagedImage>& damaged_image_object() {
  using I = engine::DamagedImage;
  static const Object<I> object(
      "DamagedImage", "An image below a newest point that its last verification found damaged.",
      {{"backup_id", "string", "", &I::backup_id},
       {"disk_id", "integer", "index", &I::disk_index},
       {"verified_at", "time", "", &I::verified_at},
       {"damaged_bytes", "integer", "", &I::damaged_bytes},
       {"unnamed_bytes", "integer", "of those, in no range that was remembered", &I::unnamed_bytes},
       {"problem", "string?", "what else is wrong", &I::problem},
       {"newest_reads_it", "boolean", "false: newer images have stored all of it anew",
        &I::newest_reads_it},
       {"damaged_backups", "[string]", "older than the newest: they read it, and stay damaged",
        &I::damaged_backups}});
  return object;
}

const Object<engine::WantedView>& wanted_object() {
  using V = engine::WantedView;
  static const Object<V> object(
      "Wanted", "What verifications say that the newest points of a VM lack.",
      {{"vm_context_id", "string", "", &V::context_id},
       {"vm_name", "string", "", &V::vm_name},
       {"repository_id", "string", "empty when the VM has no point", &V::repository_id},
       {"disks", "[WantedDisk]", "those with a point, by index",
        [](const V& v) { return wanted_disk_object().list(v.disks); }},
       {"bytes", "integer", "in the ranges of all disks", &V::bytes},
       {"complete", "boolean", "of every disk", &V::complete},
       {"damaged_images", "[DamagedImage]", "by disk, the oldest first",
        [](const V& v) { return damaged_image_object().list(v.images); }}});
  return object;
}

Response wanted(const Call& call) {
  const engine::WantedQuery query{.vm = call.variable("vm"),
                                  .repository_id = call.query("repository_id")};
  return json_response(200, wanted_object().json(call.engine.wanted(query)));
}

}  // namespace

std::vector<Schema> wanted_answers() {
  return schemas_of(wanted_range_object(), wanted_disk_object(), damaged_image_object(),
                    wanted_object());
}

const std::vector<Route>& wanted_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/{vm}/wanted",
       .operation = "getWanted",
       .scope = Scope::read,
       .handler = wanted,
       .summary = "What the newest points of a VM lack, by context id or name, because "
                  "verifications have found it damaged",
       .answer = "Wanted",
       .query = {{"repository_id", "string", "that of the newest point when left out"}},
       .failure = "failed to find out what is wanted",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
