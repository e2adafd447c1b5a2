// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// NBD state and health. A32.
namespace api_tests {
namespace {

class State : public ApiTest {};

TEST_F(State, ExportsShowWhatIsServed) {
  EXPECT_CALL(engine_, exports).WillOnce(Return(std::vector{ingest_export()}));
  EXPECT_EQ(body_of(get("/nbd/exports")), Json::parse(R"({"count":1,"total":1,"exports":[{
    "name":"pgtest1-1759913694-disk0","kind":"ingest","backup_id":"backup-pgtest1-1759913694",
    "disk_id":0,"vm_name":"pgtest1","read_only":false,"size_bytes":109521666048,
    "state":"transferring","port":10100,
    "uris":["nbd://127.0.0.1:10100/pgtest1-1759913694-disk0",
            "nbd://127.0.0.1:10809/pgtest1-1759913694-disk0"],
    "connections":2,"bytes_received":1048576,"bytes_zeroed":0,"bytes_read":0,
    "in_flight_bytes":65536,"opened_at":"2025-10-08T08:54:54Z","last_request_at":""}]})"));
}

TEST_F(State, PortsCountBothEndsOfTheRange) {
  EXPECT_CALL(engine_, ports).WillOnce(Return(ports())).WillOnce(Return(engine::PortsStatus{}));
  const Json body = body_of(get("/nbd/ports/status"));
  const Json allocation = Json::parse(R"({"port":10100,"job_id":"backup-pgtest1-1759913694",
    "vm_name":"pgtest1","export_name":"pgtest1-1759913694-disk0",
    "allocated_at":"2025-10-08T08:54:54Z","expires_at":null})");
  EXPECT_EQ(body["total_ports"], 101);
  EXPECT_EQ(body["allocated"], 2);
  EXPECT_EQ(body["available"], 99);
  EXPECT_EQ(body["range_start"], 10100);
  EXPECT_EQ(body["range_end"], 10200);
  EXPECT_EQ(body["allocations"][0], allocation);
  EXPECT_EQ(body["blocked"], Json::parse("[10107]"));
  const Json none = body_of(get("/nbd/ports/status"));
  EXPECT_EQ(none["total_ports"], 0);
  EXPECT_EQ(none["available"], 0);
}

TEST_F(State, HealthIsTheSameUnderBothPaths) {
  EXPECT_CALL(engine_, health)
      .Times(2)
      .WillRepeatedly(Return(engine::HealthView{true, true, false}));
  const Json expected = Json::parse(R"({"service":"varve","status":"healthy","version":"1.2.3",
    "timestamp":"2025-10-08T08:54:54Z","database":"connected"})");
  EXPECT_EQ(body_of(request("GET", "/health")), expected);
  EXPECT_EQ(body_of(get("/health")), expected);
}

TEST_F(State, WithoutACatalogueItIsUnhealthy) {
  EXPECT_CALL(engine_, health).WillOnce(Return(engine::HealthView{}));
  const Json body = body_of(request("GET", "/health"));
  EXPECT_EQ(body["status"], "unhealthy");
  EXPECT_EQ(body["database"], "disconnected");
}

TEST_F(State, LivezAsksNobody) {
  EXPECT_CALL(engine_, health).Times(0);
  EXPECT_EQ(request("GET", "/livez").status, 200);
}

TEST_F(State, ReadyzNamesTheConditionThatIsNotMet) {
  EXPECT_CALL(engine_, health)
      .WillOnce(Return(engine::HealthView{true, true, false}))
      .WillOnce(Return(engine::HealthView{true, false, false}))
      .WillOnce(Return(engine::HealthView{true, true, true}));
  EXPECT_EQ(body_of(request("GET", "/readyz")), Json::parse(R"({"status":"ready"})"));
  const Json recovering = body_of(request("GET", "/readyz"), 503);
  EXPECT_EQ(recovering["status"], "not ready");
  EXPECT_EQ(recovering["checks"]["recovery"], false);
  EXPECT_EQ(recovering["checks"]["catalogue"], true);
  EXPECT_EQ(body_of(request("GET", "/readyz"), 503)["checks"]["not_shutting_down"], false);
}

TEST_F(State, ReadinessTellsOfAFullCatalogueAndOfRepositories) {
  engine::HealthView health{true, true, false};
  health.unavailable_repositories = {{"nas", "/mnt/nas is not there"}};
  EXPECT_CALL(engine_, health).WillOnce(Return(health)).WillOnce([&] {
    health.catalogue_writable = false;
    return health;
  });
  const Json nas = Json::parse(R"({"nas":"/mnt/nas is not there"})");
  EXPECT_EQ(body_of(request("GET", "/readyz"))["unavailable_repositories"], nas);
  const Json full = body_of(request("GET", "/readyz"), 503);
  EXPECT_EQ(full["checks"]["catalogue_writable"], false);
  EXPECT_EQ(full["unavailable_repositories"], nas);
}

}  // namespace
}  // namespace api_tests
