#include "api_fixture.h"

/// NBD state, health, metrics. A32.
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

TEST_F(State, MetricsAreGoldenText) {
  EXPECT_CALL(engine_, metrics).WillOnce(Return(metrics()));
  const auto answer = request("GET", "/metrics");
  EXPECT_EQ(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
  std::string samples;  // without the comments
  for (size_t at = 0; at < answer.body.size();) {
    const size_t end = answer.body.find('\n', at) + 1;
    if (answer.body[at] != '#') samples += answer.body.substr(at, end - at);
    at = end;
  }
  EXPECT_EQ(samples, R"(varve_build_info{version="1.2.3"} 1
varve_jobs{state="preparing"} 0
varve_jobs{state="running"} 1
varve_jobs{state="finalizing"} 0
varve_jobs{state="completed"} 3
varve_jobs{state="failed"} 0
varve_jobs{state="cancelled"} 0
varve_backups_total{result="completed",type="full"} 2
varve_last_success_timestamp_seconds{vm="pg\"test\"\\1\n"} 1759913694
varve_nbd_connections 2
varve_nbd_requests_total{command="write",result="ok"} 32
varve_nbd_request_seconds_bucket{le="0.001"} 30
varve_nbd_request_seconds_bucket{le="0.01"} 31
varve_nbd_request_seconds_bucket{le="+Inf"} 32
varve_nbd_request_seconds_sum 0.25
varve_nbd_request_seconds_count 32
varve_bytes_total{kind="received"} 1048576
varve_bytes_total{kind="zeroed"} 0
varve_bytes_total{kind="elided"} 0
varve_bytes_total{kind="stored"} 0
varve_bytes_total{kind="read"} 0
varve_ports_allocated 2
varve_repository_bytes{repository="1",kind="total"} 1000000000
varve_repository_bytes{repository="1",kind="used"} 250000000
varve_repository_bytes{repository="1",kind="available"} 750000000
varve_points{verification="never"} 1
varve_points{verification="sound"} 3
varve_verified_images_total{begun_by="scrub",result="sound"} 3
varve_verified_bytes_total{begun_by="scrub"} 65536
varve_seal_seconds_bucket{le="1"} 2
varve_seal_seconds_bucket{le="+Inf"} 2
varve_seal_seconds_sum 0.5
varve_seal_seconds_count 2
varve_flags_total{flag="encrypted"} 1
varve_node_calls_total{result="accepted"} 4
)");
}

TEST_F(State, EveryMetricHasItsTypeBeforeAnythingIsCounted) {
  EXPECT_CALL(engine_, metrics).WillOnce(Return(engine::MetricsSnapshot{}));
  const std::string text = request("GET", "/metrics").body;
  for (const char* name :
       {"build_info gauge", "jobs gauge", "backups_total counter", "nbd_connections gauge",
        "nbd_requests_total counter", "nbd_request_seconds histogram", "bytes_total counter",
        "ports_allocated gauge", "repository_bytes gauge", "seal_seconds histogram", "points gauge",
        "verified_images_total counter", "verified_bytes_total counter", "flags_total counter",
        "node_calls_total counter", "last_success_timestamp_seconds gauge"}) {
    EXPECT_NE(text.find(std::string("# TYPE varve_") + name + "\n"), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace api_tests
