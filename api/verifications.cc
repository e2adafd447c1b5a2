// SPDX-License-Identifier: Apache-2.0
#include "api/object.h"
#include "api/paging.h"
#include "api/read_member.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Proofs that backups are what was sent: docs/http-api.md, "Verification".
namespace api {
namespace {

using engine::Refusal;
using engine::RefusalKind;
using engine::Verification;
using Image = engine::ImageVerification;

constexpr int64_t kDaysMax = 36'500;

const Object<engine::Damage>& damage_object() {
  using D = engine::Damage;
  static const Object<D> object(
      "Damage", "Guest bytes that are not what was sent.",
      {{"offset", "integer", "guest bytes", &D::offset},
       {"length", "integer", "", &D::length},
       {"host_offset", "integer", "where they lie in the image's file; 0: nowhere",
        &D::host_offset},
       {"what", "string", "", &D::what}});
  return object;
}

const Object<engine::SecondReading>& second_reading_object() {
  using S = engine::SecondReading;
  static const Object<S> object(
      "SecondReading", "What a second implementation, libqcow, has read of an image.",
      {{"reader", "string", "libqcow", &S::reader},
       {"stored_bytes", "integer", "of the clusters that the manifest names as stored",
        &S::stored_bytes},
       {"covered_bytes", "integer", "of those, what it read and was compared with what was sent",
        &S::covered_bytes},
       {"damaged_bytes", "integer", "of those", &S::damaged_bytes},
       {"problem", "string?", "why it did not read, or not all; no damage by itself", &S::problem},
       {"damaged", "[Damage]", "the first ranges, without their place in the file",
        [](const S& s) { return damage_object().list(s.damaged); }}});
  return object;
}

const Object<Image>& image_object() {
  static const Object<Image> object(
      "ImageVerification", "The proof of one image.",
      {{"backup_id", "string", "", &Image::job_id},
       {"vm_name", "string", "", &Image::vm_name},
       {"disk_id", "integer", "index", &Image::disk_index},
       {"verified_at", "time", "", &Image::verified_at},
       {"result", "string:sound,damaged,without_manifest",
        "without_manifest: of an earlier version; tables and sidecar are proven, not the content",
        &Image::result},
       {"data_bytes", "integer", "whose content varve's own reader compared with what was sent",
        &Image::data_bytes},
       {"zero_bytes", "integer", "zero by their mapping", &Image::zero_bytes},
       {"damaged_bytes", "integer", "by the reader that found most", &Image::damaged_bytes},
       {"problem", "string?", "what else is wrong", &Image::problem},
       {"damaged", "[Damage]", "the first ranges that varve's own reader found",
        [](const Image& i) { return damage_object().list(i.damaged); }},
       {"second_reader", "SecondReading|null", "null: it was not asked for, or not reached",
        [](const Image& i) {
          return i.second_reader ? second_reading_object().json(*i.second_reader) : Json();
        }}});
  return object;
}

const Object<Verification>& verification_object() {
  using V = Verification;
  static const Object<V> object(
      "Verification", "Images proven one after the other.",
      {{"verification_id", "string", "", &V::id},
       {"backup_id", "string?", "with all that it stands on", &V::backup_id},
       {"vm_name", "string?", "all points of a VM", &V::vm_name},
       {"begun_by", "string:request,scrub", "scrub: by varve, on its schedule", &V::begun_by},
       {"state", "string:running,completed,cancelled,failed", "", &V::state},
       {"image_count", "integer", "to be proven", &V::image_count},
       {"skipped_count", "integer", "found sound not long ago", &V::skipped_count},
       {"total_bytes", "integer", "stored in these images, for each reader", &V::total_bytes},
       {"read_bytes", "integer", "of those", &V::read_bytes},
       {"started_at", "time", "", &V::started_at},
       {"ended_at", "time|null", "null: it is running", &V::ended_at},
       {"error", "string?", "why it failed", &V::error},
       {"damaged_backups", "[string]", "every backup that reads what is damaged",
        &V::damaged_backups},
       {"images", "[ImageVerification]", "as far as it has got",
        [](const V& v) { return image_object().list(v.images); }}});
  return object;
}

const Object<Page<Verification>>& verifications_object() {
  using List = Page<Verification>;
  static const Object<List> object(
      "VerificationList", "Verifications since varve has started, newest first.",
      {{"verifications", "[Verification]", "",
        [](const List& list) { return verification_object().list(list.shown); }},
       {"count", "integer", "of this page", [](const List& list) { return list.shown.size(); }},
       {"total", "integer", "matches before limit and offset", &List::total}});
  return object;
}

uint64_t bounded_member(const InputJson& body, const char* name, int64_t maximum) {
  const auto number = integer_member(body, name);
  if (!number) return 0;
  if (*number >= 0 && *number <= maximum) return static_cast<uint64_t>(*number);
  throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                std::string("member '") + name + "' must be 0 to " + std::to_string(maximum));
}

/// Who reads: all there are, when nobody is named.
void take_readers(const InputJson& body, engine::NewVerification& request) {
  const InputJson* const readers = member(body, "readers");
  if (readers == nullptr) return;
  request.by_varve = request.by_libqcow = false;
  for (const InputJson& reader : *readers) {
    const std::string name = reader.get<std::string>();
    if (name == "varve") request.by_varve = true;
    if (name == "libqcow") request.by_libqcow = true;
    if (name == "varve" || name == "libqcow") continue;
    throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                  "member 'readers' may name varve and libqcow");
  }
  if (request.by_varve || request.by_libqcow) return;
  throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                "member 'readers' must name varve, libqcow or both");
}

/// What both bodies have; either may be left out.
engine::NewVerification request_of(const Call& call, std::string_view schema) {
  engine::NewVerification request;
  if (call.request.body.empty()) return request;
  const InputJson body = call.body(schema, kInvalidBody);
  if (schema == "NewVerification") request.vm_name = text_member(body, "vm_name");
  request.skip_days = static_cast<uint32_t>(bounded_member(body, "skip_days", kDaysMax));
  request.bytes_per_second = bounded_member(body, "bytes_per_second", INT64_MAX);
  take_readers(body, request);
  return request;
}

Response begun(const Call& call, const engine::NewVerification& request) {
  const Verification verification = call.engine.verify(request);
  return created_response(202, verification_object().json(verification), "verifications",
                          verification.id);
}

Response verify_backup(const Call& call) {
  engine::NewVerification request = request_of(call, "VerifyBackup");
  request.backup_id = call.variable("backup_id");
  return begun(call, request);
}

Response verify(const Call& call) {
  const engine::NewVerification request = request_of(call, "NewVerification");
  return begun(call, request);
}

Response list(const Call& call) {
  std::vector<Verification> found = call.engine.verifications();
  keep_matching(call, "vm_name", found, [](const Verification& v) { return v.vm_name; });
  keep_matching(call, "backup_id", found, [](const Verification& v) { return v.backup_id; });
  keep_matching_word<engine::VerificationState>(call, "state", found,
                                                [](const Verification& v) { return v.state; });
  return json_response(200, verifications_object().json(page_of(call, std::move(found))));
}

Response get(const Call& call) {
  const Verification found = call.engine.verification(call.variable("verification_id"));
  return json_response(200, verification_object().json(found));
}

Response cancel(const Call& call) {
  const Verification ended = call.engine.cancel_verification(call.variable("verification_id"));
  return json_response(200, verification_object().json(ended));
}

}  // namespace

std::vector<Schema> verification_answers() {
  return schemas_of(damage_object(), second_reading_object(), image_object(), verification_object(),
                    verifications_object());
}

const std::vector<Route>& verification_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/backups/{backup_id}/verify",
       .operation = "verifyBackup",
       .scope = Scope::admin,
       .handler = verify_backup,
       .summary = "Begin to prove that a backup, and all that it stands on, is what was sent",
       .status = 202,
       .answer = "Verification",
       .body = "VerifyBackup",
       .failure = "failed to begin the verification",
       .body_may_be_left_out = true},
      {.method = "POST",
       .pattern = "/api/v1/verifications",
       .operation = "startVerification",
       .scope = Scope::admin,
       .handler = verify,
       .summary = "The same of all points, or of those of a VM",
       .status = 202,
       .answer = "Verification",
       .body = "NewVerification",
       .failure = "failed to begin the verification",
       .body_may_be_left_out = true},
      {.method = "GET",
       .pattern = "/api/v1/verifications",
       .operation = "listVerifications",
       .scope = Scope::read,
       .handler = list,
       .summary = "List verifications since varve has started, newest first",
       .answer = "VerificationList",
       .query = {{"vm_name", "string", "of those of one VM"},
                 {"backup_id", "string", "of those of one backup"},
                 {"state", "string:running,completed,cancelled,failed", ""},
                 kLimit,
                 kOffset},
       .failure = "failed to list verifications"},
      {.method = "GET",
       .pattern = "/api/v1/verifications/{verification_id}",
       .operation = "getVerification",
       .scope = Scope::read,
       .handler = get,
       .summary = "One verification, and how far it has got",
       .answer = "Verification",
       .failure = "failed to get the verification"},
      {.method = "DELETE",
       .pattern = "/api/v1/verifications/{verification_id}",
       .operation = "cancelVerification",
       .scope = Scope::admin,
       .handler = cancel,
       .summary = "Cancel a verification; what it has found stays known",
       .answer = "Verification",
       .failure = "failed to cancel the verification",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
