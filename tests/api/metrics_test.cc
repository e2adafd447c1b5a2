// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <cstdio>
#include <fstream>
#include <set>

#include "api_fixture.h"

/// GET /metrics. A32.
namespace api_tests {
namespace {

class Metrics : public ApiTest {
 protected:
  std::string text(const engine::MetricsSnapshot& snapshot) {
    EXPECT_CALL(engine_, metrics).WillOnce(Return(snapshot));
    const auto answer = request("GET", "/metrics");
    EXPECT_EQ(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
    return answer.body;
  }

  static std::string without_comments(const std::string& text) {
    std::string samples;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at) + 1;
      if (text[at] != '#') samples += text.substr(at, end - at);
      at = end;
    }
    return samples;
  }
};

TEST_F(Metrics, AreGoldenText) {
  EXPECT_EQ(without_comments(text(metrics())), R"(varve_build_info{version="1.2.3"} 1
varve_ready 1
varve_catalogue_writable 1
varve_jobs{state="preparing"} 0
varve_jobs{state="running"} 1
varve_jobs{state="finalizing"} 0
varve_jobs{state="completed"} 3
varve_jobs{state="failed"} 0
varve_jobs{state="cancelled"} 0
varve_backups_total{result="completed",type="full"} 2
varve_job_failures_total{code="stalled"} 2
varve_start_refusals_total{code="no_space"} 1
varve_job_last_traffic_timestamp_seconds{vm="pgtest1"} 1759913694
varve_last_success_timestamp_seconds{vm="pg\"test\"\\1\n"} 1759913694
varve_last_verified_timestamp_seconds{vm="pg\"test\"\\1\n"} 1759913694
varve_vm_registered_timestamp_seconds{vm="pg\"test\"\\1\n"} 1759913694
varve_vm_registered_timestamp_seconds{vm="pgtest1"} 1759913694
varve_vm_expected_interval_seconds{vm="pg\"test\"\\1\n"} 90000
varve_vm_overdue{vm="pg\"test\"\\1\n"} 1
varve_chain_images{vm="pgtest1",repository="1",disk="0"} 12
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
varve_exports{kind="ingest"} 2
varve_exports{kind="point"} 0
varve_exports{kind="temporary"} 0
varve_restores 1
varve_tasks_running{kind="promotion"} 0
varve_tasks_running{kind="verification"} 1
varve_repository_bytes{repository="1",kind="total"} 1000000000
varve_repository_bytes{repository="1",kind="used"} 250000000
varve_repository_bytes{repository="1",kind="available"} 750000000
varve_repository_bytes{repository="1",kind="reserve"} 10000000
varve_repository_available{repository="1"} 1
varve_repository_available{repository="nas"} 0
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
varve_events_total{event="failed"} 2
varve_notifications_total{way="url",result="delivered"} 2
)");
}

TEST_F(Metrics, OfThePageAreThoseOfTheText) {
  std::set<std::string> said, written;
  const std::string all = text(engine::MetricsSnapshot{});
  for (size_t at = 0; (at = all.find("# TYPE ", at)) != std::string::npos;) {
    at += 7;
    written.insert(all.substr(at, all.find('\n', at) - at));
  }
  std::ifstream page(VARVE_MONITORING_PAGE);
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `varve_") && !line.starts_with("| `process_")) continue;
    const size_t name_end = line.find_first_of("{`", 3);
    const size_t type = line.find("| ", name_end) + 2;
    said.insert(line.substr(3, name_end - 3) + " " +
                line.substr(type, line.find(' ', type) - type));
  }
  EXPECT_EQ(said, written) << "the table of docs/monitoring.md, and GET /metrics";
  EXPECT_GT(written.size(), 35u);
}

TEST_F(Metrics, PromtoolHasNothingToSayAboutThem) {
  if (std::system("promtool --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no promtool";
  api::ServiceNumbers service;
  service.version = "1.2.3";
  service.http_requests = {{{"backups", "2xx"}, 7}};
  service.process = {1759913694.25, 1.5, 17, 1024, 9, 1 << 24, 1 << 28};
  for (const auto& snapshot : {metrics(), engine::MetricsSnapshot{}}) {
    FILE* const promtool = popen("promtool check metrics 2>&1", "w");
    const std::string page = api::prometheus_text(snapshot, service);
    EXPECT_EQ(fwrite(page.data(), 1, page.size(), promtool), page.size());
    EXPECT_EQ(pclose(promtool), 0) << page;
  }
}

TEST_F(Metrics, OfTheProcessAreLeftOutWhereNobodyKnowsThem) {
  api::ServiceNumbers service;
  service.process.open_fds = 17;
  const std::string page = api::prometheus_text({}, service);
  EXPECT_NE(page.find("\nprocess_open_fds 17\n"), std::string::npos);
  EXPECT_EQ(page.find("\nprocess_resident_memory_bytes"), std::string::npos);
}

TEST_F(Metrics, RequestsAreCountedBySubjectAndClassOfTheStatus) {
  EXPECT_CALL(engine_, vm).WillRepeatedly(Return(vm_view()));
  get("/vm-contexts/a");
  get("/vm-contexts/b");
  request("GET", "/livez");
  request("DELETE", "/livez");
  request("GET", "/made/up");
  const std::string page = text({});
  for (const char* line :
       {"{subject=\"vm-contexts\",status=\"2xx\"} 2", "{subject=\"livez\",status=\"2xx\"} 1",
        "{subject=\"other\",status=\"4xx\"} 2"}) {
    EXPECT_NE(page.find(std::string("varve_http_requests_total") + line + "\n"), std::string::npos)
        << line << "\n"
        << page;
  }
}

}  // namespace
}  // namespace api_tests
