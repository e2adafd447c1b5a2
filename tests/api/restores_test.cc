// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// /restores.
namespace api_tests {
namespace {

class Restores : public ApiTest {};

TEST_F(Restores, AreAskedForByBackupDiskAndMode) {
  EXPECT_CALL(engine_, create_restore).WillOnce([](const engine::NewRestore& request) {
    EXPECT_EQ(request.backup_id, "backup-a-1");
    EXPECT_EQ(request.disk_id, 1u);
    EXPECT_EQ(request.mode, engine::RestoreMode::writable);
    EXPECT_EQ(request.size_limit_bytes, 1048576u);
    EXPECT_EQ(request.expires_in_seconds, 60u);
    return restore();
  });
  const auto answer = post("/restores", R"({"backup_id":"backup-a-1","disk_id":1,
    "mode":"writable","size_limit_bytes":1048576,"expires_in_seconds":60})");
  EXPECT_EQ(answer.status, 201);
  const Json body = Json::parse(answer.body);
  EXPECT_EQ(body["restore_id"], restore().restore.id);
  EXPECT_EQ(body["disk_id"], 1);
  EXPECT_EQ(body["nbd_uri"], restore().disks[0].uris[0]);
  EXPECT_EQ(body["written_bytes"], 200704);
  EXPECT_EQ(body["size_limit_bytes"], nullptr);
}

TEST_F(Restores, OfSeveralDisksHaveNoSingleName) {
  engine::RestoreView both = restore();
  both.restore.disks.push_back(both.restore.disks[0]);
  both.disks.push_back(both.disks[0]);
  EXPECT_CALL(engine_, restore).WillOnce(Return(both));
  const Json body = body_of(get("/restores/x"));
  EXPECT_EQ(body["disks"].size(), 2u);
  EXPECT_FALSE(body.contains("nbd_uri"));
  EXPECT_FALSE(body.contains("disk_id"));
  EXPECT_EQ(body["written_bytes"], 401408);
}

TEST_F(Restores, WhatCannotBeRightIsRefused) {
  expect_problem(post("/restores", R"({"mode":"writable"})"), 400, "backup_id is required",
                 "missing_field");
  expect_problem(post("/restores", R"({"backup_id":"a"})"), 400,
                 "mode must be 'read-only' or 'writable'", "invalid_mode");
  for (const char* body : {R"({"backup_id":"a","mode":"writable","size_limit_bytes":0})",
                           R"({"backup_id":"a","mode":"writable","expires_in_seconds":-1})",
                           R"({"backup_id":"a","mode":"read-only","size_limit_bytes":1})",
                           R"({"backup_id":"a","mode":"writable","disk_id":"1"})"}) {
    expect_problem(post("/restores", body), 400, "invalid request body", "invalid_body");
  }
  EXPECT_CALL(engine_, drop_restore).WillOnce(Throw(engine::refusals::restore_not_found("x")));
  expect_problem(request("DELETE", "/api/v1/restores/x"), 404, "restore not found",
                 "restore_not_found");
}

TEST_F(Restores, ArePromotedToAPath) {
  EXPECT_CALL(engine_, promote_restore)
      .WillOnce([](const std::string& id, const engine::NewPromotion& request) {
        EXPECT_EQ(id, "x");
        EXPECT_EQ(request.path, "/srv/web.raw");
        EXPECT_EQ(request.format, engine::DiskFormat::qcow2);
        return promoted();
      });
  const auto answer = post("/restores/x/promote", R"({"path":"/srv/web.raw","format":"qcow2"})");
  EXPECT_EQ(answer.status, 202);
  const Json promotion = Json::parse(answer.body)["promotion"];
  EXPECT_EQ(promotion["state"], "copying");
  EXPECT_EQ(promotion["copied_bytes"], 3221225472);
  EXPECT_EQ(promotion["ended_at"], nullptr);
  EXPECT_FALSE(promotion.contains("error"));
  EXPECT_CALL(engine_, cancel_promotion)
      .WillOnce(Throw(engine::refusals::promotion_is_not_running("x")));
  expect_problem(request("DELETE", "/api/v1/restores/x/promote"), 409, "no promotion is running",
                 "promotion_is_not_running");
  expect_problem(post("/restores/x/promote", "{}"), 400, "path is required", "missing_field");
  expect_problem(post("/restores/x/promote", R"({"path":"/a","format":"vmdk"})"), 400,
                 "format must be 'raw' or 'qcow2'", "invalid_format");
}

}  // namespace
}  // namespace api_tests
