// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// GET /points.
namespace api_tests {
namespace {

class Points : public ApiTest {};

TEST_F(Points, ShowWhatTheyAreAndWhereTheyAreRead) {
  EXPECT_CALL(engine_, points).WillOnce(Return(std::vector{point()}));
  const Json body = body_of(get("/points"));
  EXPECT_EQ(body["count"], 1);
  const Json& shown = body["points"][0];
  EXPECT_EQ(shown["export_name"], "pgtest1/disk-1@backup-pgtest1-1760000101");
  EXPECT_EQ(shown["uris"],
            Json::parse(R"(["nbd://127.0.0.1:10809/pgtest1/disk-1@backup-pgtest1-1760000101"])"));
  EXPECT_EQ(shown["backup_id"], point().point.job_id);
  EXPECT_EQ(shown["size_bytes"], point().point.capacity_bytes);
  EXPECT_EQ(shown["bytes_received"], point().point.counters.bytes_received);
  EXPECT_EQ(shown["bytes_stored"], point().point.bytes_stored);
}

TEST_F(Points, AreAskedForByVmDiskAndPoint) {
  EXPECT_CALL(engine_, points).WillOnce([](const engine::PointQuery& query) {
    EXPECT_EQ(query.vm_name, "a b@1");
    EXPECT_EQ(query.disk_id, 2u);
    EXPECT_EQ(query.point, "latest");
    EXPECT_EQ(query.limit, 5u);
    EXPECT_EQ(query.offset, 10u);
    return std::vector<engine::PointView>();
  });
  get("/points?vm_name=a%20b@1&disk_id=2&point=latest&limit=5&offset=10");
}

TEST_F(Points, TheLatestOfEveryVmNeedsNoName) {
  EXPECT_CALL(engine_, points).WillOnce([](const engine::PointQuery& query) {
    EXPECT_EQ(query.vm_name, "");
    EXPECT_EQ(query.point, "latest");
    return std::vector{point()};
  });
  EXPECT_EQ(body_of(get("/points?point=latest"))["count"], 1);
}

TEST_F(Points, WrongQuestionsAreRefused) {
  expect_problem(get("/points?point=backup-a-1"), 400, "point needs vm_name", "missing_field");
  expect_problem(get("/points?disk_id=x"), 400, "invalid disk_id", "invalid_query");
  const auto none = engine::refusals::point_not_found("a", 1, "latest");
  EXPECT_CALL(engine_, points).WillOnce(Throw(none));
  const auto answer = get("/points?vm_name=a&disk_id=1&point=latest");
  expect_problem(answer, 404, "restore point not found", "point_not_found");
  EXPECT_EQ(Json::parse(answer.body)["details"], "disk 1 of 'a' has no point 'latest'");
}

TEST_F(Points, WhatDiffersIsSaidInRangesAndPages) {
  engine::ChangesView page = changes();
  page.next_offset = 2097152;
  EXPECT_CALL(engine_, changes).WillOnce([&](const engine::ChangesQuery& query) {
    EXPECT_EQ(query.backup_id, "backup-b-2");
    EXPECT_EQ(query.since, "backup-b-1");
    EXPECT_EQ(query.disk_id, 1u);
    EXPECT_EQ(query.offset, 4096u);
    EXPECT_EQ(query.limit, 2u);
    return page;
  });
  const Json body =
      body_of(get("/backups/backup-b-2/changes?since=backup-b-1&disk_id=1&offset=4096&limit=2"));
  EXPECT_EQ(body["ranges"], Json::parse(R"([{"offset":65536,"length":131072,"zero":false},
                                            {"offset":1048576,"length":65536,"zero":true}])"));
  EXPECT_EQ(body["count"], 2);
  EXPECT_EQ(body["bytes"], 196608);
  EXPECT_EQ(body["next_offset"], 2097152);
}

TEST_F(Points, AComparisonNeedsAnOlderPointOfTheSameDisk) {
  expect_problem(get("/backups/a/changes"), 400, "since is required", "missing_field");
  expect_problem(get("/backups/a/changes?since=b&limit=0"), 400, "invalid limit", "invalid_query");
  EXPECT_CALL(engine_, changes)
      .WillOnce(Throw(engine::refusals::points_not_comparable("a", "'b' is no older point")));
  expect_problem(get("/backups/a/changes?since=b"), 409, "points cannot be compared",
                 "points_not_comparable");
}

}  // namespace
}  // namespace api_tests
