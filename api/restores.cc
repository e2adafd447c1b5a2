// SPDX-License-Identifier: Apache-2.0
#include "api/object.h"
#include "api/paging.h"
#include "api/read_member.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Points to work with: docs/http-api.md, "Restores".
namespace api {
namespace {

using engine::Refusal;
using engine::RefusalKind;
using View = engine::RestoreView;

constexpr int64_t kSecondsMax = int64_t{100} * 366 * 24 * 60 * 60;

struct ShownRestoreDisk {
  const engine::RestoreDisk& disk;
  const View::Disk& state;
};

std::string first_uri(const View::Disk& disk) { return disk.uris.empty() ? "" : disk.uris.front(); }

const Object<ShownRestoreDisk>& restore_disk_object() {
  using D = ShownRestoreDisk;
  static const Object<D> object(
      "RestoreDisk", "One disk of a restore.",
      {{"disk_id", "integer", "index", [](const D& d) { return d.disk.disk_index; }},
       {"export_name", "string", "of a writable restore a secret: who knows it may write",
        [](const D& d) { return d.disk.export_name; }},
       {"nbd_uri", "string", "the first of uris", [](const D& d) { return first_uri(d.state); }},
       {"uris", "[string]", "", [](const D& d) { return d.state.uris; }},
       {"written_bytes", "integer", "space of the overlay",
        [](const D& d) { return d.state.written_bytes; }}});
  return object;
}

Json disks_of(const View& view) {
  Json disks = Json::array();
  for (size_t at = 0; at < view.disks.size(); ++at) {
    disks.push_back(restore_disk_object().json({view.restore.disks[at], view.disks[at]}));
  }
  return disks;
}

uint64_t written_bytes(const View& view) {
  uint64_t sum = 0;
  for (const View::Disk& disk : view.disks) sum += disk.written_bytes;
  return sum;
}

/// A member of the only disk; null where there are several.
template <typename Value>
Json of_only_disk(const View& view, Value value) {
  if (view.disks.size() != 1) return nullptr;
  return value(view.restore.disks.front(), view.disks.front());
}

const Object<engine::Promotion>& promotion_object() {
  using P = engine::Promotion;
  static const Object<P> object(
      "Promotion", "The last copy that was asked for, outside the repository.",
      {{"path", "string", "of the only disk's image, or of a directory of disk-N.FORMAT", &P::path},
       {"format", "string:raw,qcow2", "", &P::format},
       {"state", "string:copying,completed,failed,cancelled", "", &P::state},
       {"total_bytes", "integer", "sizes of the disks", &P::total_bytes},
       {"copied_bytes", "integer", "of those, holes too", &P::copied_bytes},
       {"error", "string?", "why it failed", &P::error},
       {"started_at", "time", "", &P::started_at},
       {"ended_at", "time|null", "null: it is being copied", &P::ended_at}});
  return object;
}

Json promotion_of(const View& view) {
  const auto& promotion = view.restore.promotion;
  return promotion ? promotion_object().json(*promotion) : Json(nullptr);
}

const Object<View>& restore_object() {
  static const Object<View> object(
      "Restore", "Disks of a restore point that somebody works with.",
      {{"restore_id", "string", "", [](const View& v) { return v.restore.id; }},
       {"backup_id", "string", "", [](const View& v) { return v.restore.job_id; }},
       {"vm_name", "string", "", [](const View& v) { return v.restore.vm_name; }},
       {"disk_id", "integer?", "index, of a restore of one disk",
        [](const View& v) {
          return of_only_disk(v,
                              [](const auto& disk, const auto&) { return Json(disk.disk_index); });
        }},
       {"mode", "string:read-only,writable", "", [](const View& v) { return v.restore.mode; }},
       {"state", "string:making,ready,dropping", "", [](const View& v) { return v.restore.state; }},
       {"export_name", "string?", "of a restore of one disk",
        [](const View& v) {
          return of_only_disk(v,
                              [](const auto& disk, const auto&) { return Json(disk.export_name); });
        }},
       {"nbd_uri", "string?", "of a restore of one disk",
        [](const View& v) {
          return of_only_disk(
              v, [](const auto&, const auto& state) { return Json(first_uri(state)); });
        }},
       {"created_at", "time", "", [](const View& v) { return v.restore.created_at; }},
       {"expires_at", "time|null", "null: never",
        [](const View& v) { return v.restore.expires_at; }},
       {"size_limit_bytes", "integer|null", "of each overlay; null: none",
        [](const View& v) { return v.restore.size_limit_bytes; }},
       {"written_bytes", "integer", "space of all overlays", written_bytes},
       {"promotion", "Promotion?", "when one has been asked for", promotion_of},
       {"disks", "[RestoreDisk]", "by index", disks_of}});
  return object;
}

const Object<Page<View>>& restores_object() {
  using Views = Page<View>;
  static const Object<Views> object(
      "RestoreList", "Restores, newest first.",
      {{"restores", "[Restore]", "",
        [](const Views& views) { return restore_object().list(views.shown); }},
       {"count", "integer", "of this page", [](const Views& views) { return views.shown.size(); }},
       {"total", "integer", "matches before limit and offset", &Views::total}});
  return object;
}

struct Dropped {
  std::string restore_id;
};

const Object<Dropped>& dropped_object() {
  static const Object<Dropped> object(
      "DroppedRestore", "Its overlays are removed.",
      {{"message", "string", "", [](const Dropped&) { return "restore dropped"; }},
       {"restore_id", "string", "", &Dropped::restore_id}});
  return object;
}

std::optional<uint64_t> positive_member(const InputJson& body, const char* name, int64_t maximum) {
  const auto number = integer_member(body, name);
  if (!number) return std::nullopt;
  if (*number < 1 || *number > maximum) {
    throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                  std::string("member '") + name + "' must be 1 to " + std::to_string(maximum));
  }
  return static_cast<uint64_t>(*number);
}

Response create_restore(const Call& call) {
  const InputJson body = call.body("NewRestore", kInvalidBody);
  engine::NewRestore request;
  request.backup_id = text_member(body, "backup_id");
  if (request.backup_id.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_field", "backup_id is required");
  }
  const auto mode = engine::from_text<engine::RestoreMode>(text_member(body, "mode"));
  if (!mode) {
    throw Refusal(RefusalKind::invalid, "invalid_mode", "mode must be 'read-only' or 'writable'");
  }
  request.mode = *mode;
  if (const auto disk = integer_member(body, "disk_id")) {
    if (*disk < 0 || *disk > UINT32_MAX) {
      throw engine::refusals::job_not_found(request.backup_id,
                                            "the job has no disk " + std::to_string(*disk));
    }
    request.disk_id = static_cast<uint32_t>(*disk);
  }
  request.size_limit_bytes = positive_member(body, "size_limit_bytes", INT64_MAX);
  request.expires_in_seconds = positive_member(body, "expires_in_seconds", kSecondsMax);
  if (request.size_limit_bytes && *mode == engine::RestoreMode::read_only) {
    throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                  "member 'size_limit_bytes' needs mode 'writable'");
  }
  const View made = call.engine.create_restore(request);
  return created_response(201, restore_object().json(made), "restores", made.restore.id);
}

Response list_restores(const Call& call) {
  std::vector<View> found = call.engine.restores();
  keep_matching(call, "vm_name", found, [](const View& v) { return v.restore.vm_name; });
  keep_matching(call, "backup_id", found, [](const View& v) { return v.restore.job_id; });
  keep_matching_word<engine::RestoreState>(call, "state", found,
                                           [](const View& v) { return v.restore.state; });
  return json_response(200, restores_object().json(page_of(call, std::move(found))));
}

Response get_restore(const Call& call) {
  const View view = call.engine.restore(call.variable("restore_id"));
  return json_response(200, restore_object().json(view));
}

Response drop(const Call& call) {
  const std::string& id = call.variable("restore_id");
  call.engine.drop_restore(id);
  return json_response(200, dropped_object().json({id}));
}

Response promote(const Call& call) {
  const InputJson body = call.body("NewPromotion", kInvalidBody);
  engine::NewPromotion request;
  request.path = text_member(body, "path");
  if (request.path.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_field", "path is required");
  }
  if (const std::string word = text_member(body, "format"); !word.empty()) {
    request.format = engine::from_text<engine::DiskFormat>(word);
    if (!request.format) {
      throw Refusal(RefusalKind::invalid, "invalid_format", "format must be 'raw' or 'qcow2'");
    }
  }
  const View view = call.engine.promote_restore(call.variable("restore_id"), request);
  return created_response(202, restore_object().json(view), "restores", view.restore.id);
}

Response cancel_promotion(const Call& call) {
  const View view = call.engine.cancel_promotion(call.variable("restore_id"));
  return json_response(200, restore_object().json(view));
}

}  // namespace

std::vector<Schema> restore_answers() {
  return schemas_of(restore_disk_object(), promotion_object(), restore_object(), restores_object(),
                    dropped_object());
}

const std::vector<Route>& restore_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/restores",
       .operation = "createRestore",
       .scope = Scope::restore,
       .handler = create_restore,
       .summary = "Work with the disks of a restore point, read-only or by private overlays",
       .status = 201,
       .answer = "Restore",
       .body = "NewRestore",
       .failure = "failed to make the restore",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/restores",
       .operation = "listRestores",
       .scope = Scope::read,
       .handler = list_restores,
       .summary = "List restores, newest first",
       .answer = "RestoreList",
       .query = {{"vm_name", "string", "as registered"},
                 {"backup_id", "string", ""},
                 {"state", "string:making,ready,dropping", ""},
                 kLimit,
                 kOffset},
       .failure = "failed to list restores"},
      {.method = "GET",
       .pattern = "/api/v1/restores/{restore_id}",
       .operation = "getRestore",
       .scope = Scope::read,
       .handler = get_restore,
       .summary = "One restore",
       .answer = "Restore",
       .failure = "failed to get the restore"},
      {.method = "DELETE",
       .pattern = "/api/v1/restores/{restore_id}",
       .operation = "dropRestore",
       .scope = Scope::restore,
       .handler = drop,
       .summary = "Drop a restore and what was written to it",
       .answer = "DroppedRestore",
       .failure = "failed to drop the restore",
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/restores/{restore_id}/promote",
       .operation = "promoteRestore",
       .scope = Scope::restore,
       .handler = promote,
       .summary = "Begin to copy a restore's disks to where they stand alone",
       .status = 202,
       .answer = "Restore",
       .body = "NewPromotion",
       .failure = "failed to promote the restore",
       .waits_for = WaitsFor::storage},
      {.method = "DELETE",
       .pattern = "/api/v1/restores/{restore_id}/promote",
       .operation = "cancelPromotion",
       .scope = Scope::restore,
       .handler = cancel_promotion,
       .summary = "Cancel the promotion; nothing of the copy is left",
       .answer = "Restore",
       .failure = "failed to cancel the promotion",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
