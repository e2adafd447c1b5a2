// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// What the existing client asks: change ids and telemetry.
namespace api_tests {
namespace {

class ChangeId : public ApiTest {
 protected:
  static void expect_only_strings(const Json& body) {
    for (const auto& [name, value] : body.items()) EXPECT_TRUE(value.is_string()) << name;
  }
};

// A21
TEST_F(ChangeId, TheAnswerIsTheContractsExampleAndAllStrings) {
  engine::ChangeIdQuery asked;
  EXPECT_CALL(engine_, change_id).WillOnce([&](const engine::ChangeIdQuery& query) {
    asked = query;
    return engine::ChangeIdAnswer{kChangeId, "backup-pgtest1-1759913694", false};
  });
  const Json body = body_of(get("/backups/changeid?vm_name=pgtest1&disk_id=0"));
  EXPECT_EQ(asked.vm_name, "pgtest1");
  EXPECT_EQ(asked.disk_id, 0u);
  EXPECT_EQ(body, Json::parse(R"({"vm_name":"pgtest1","disk_id":"0",
    "change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531",
    "backup_job_id":"backup-pgtest1-1759913694","message":"Previous change_id found"})"));
  expect_only_strings(body);
}

// A21
TEST_F(ChangeId, WithoutOneTheAnswerIsStill200AndAllStrings) {
  EXPECT_CALL(engine_, change_id)
      .WillOnce(Return(engine::ChangeIdAnswer{}))
      .WillOnce(Return(engine::ChangeIdAnswer{"", "", true}));
  const Json body = body_of(get("/backups/changeid?vm_name=pgtest1&disk_id=0"));
  EXPECT_EQ(body, Json::parse(R"({"vm_name":"pgtest1","disk_id":"0","change_id":"",
    "message":"No previous backup found"})"));
  const Json ambiguous = body_of(get("/backups/changeid?vm_name=twin"));
  EXPECT_EQ(ambiguous["message"], "VM name is ambiguous");
  EXPECT_EQ(ambiguous["disk_id"], "0");
  expect_only_strings(ambiguous);
}

TEST_F(ChangeId, NamesAreDecodedOnceAndAnAbsentDiskIsNone) {
  std::vector<engine::ChangeIdQuery> asked;
  EXPECT_CALL(engine_, change_id).Times(2).WillRepeatedly([&](const engine::ChangeIdQuery& query) {
    asked.push_back(query);
    return engine::ChangeIdAnswer{};
  });
  EXPECT_EQ(body_of(get("/backups/changeid?vm_name=Web+Server%2001&repository_id=2"))["vm_name"],
            "Web Server 01");
  get("/backups/changeid?vm_name=100%2525&disk_id=7");
  EXPECT_EQ(asked[0].disk_id, std::nullopt);
  EXPECT_EQ(asked[0].repository_id, "2");
  EXPECT_EQ(asked[1].vm_name, "100%25");
  EXPECT_EQ(asked[1].disk_id, 7u);
}

TEST_F(ChangeId, BadQuestionsAreRefused) {
  expect_problem(get("/backups/changeid"), 400, "missing vm_name", "missing_vm_name",
                 "vm_name query parameter is required");
  for (const char* disk : {"disk-2000", "-1", "1.5", "0x1", "4294967296"}) {
    expect_problem(get(std::string("/backups/changeid?vm_name=a&disk_id=") + disk), 400,
                   "invalid disk_id", "invalid_query", "disk_id must be numeric");
  }
  EXPECT_CALL(engine_, change_id).WillOnce(Throw(std::runtime_error("locked")));
  expect_problem(get("/backups/changeid?vm_name=a"), 500, "database error", "database_error",
                 "locked");
}

// A18, A21
TEST_F(ChangeId, Client101AsksByPathAndDiskKey) {
  engine::ChangeIdByPathQuery asked;
  EXPECT_CALL(engine_, change_id_by_path)
      .WillOnce([&](const engine::ChangeIdByPathQuery& query) {
        asked = query;
        return engine::ChangeIdAnswer{"a/1", "j", false};
      })
      .WillOnce(Return(engine::ChangeIdAnswer{}));
  const Json body =
      body_of(get("/replications/changeid?vm_path=%2FDC1%2Fvm%2Fpgtest1&disk_id=disk-2000"));
  EXPECT_EQ(asked.vm_path, "/DC1/vm/pgtest1");
  EXPECT_EQ(asked.disk_id, "disk-2000");
  EXPECT_EQ(body, Json::parse(R"({"vm_path":"/DC1/vm/pgtest1","disk_id":"disk-2000",
    "change_id":"a/1","message":"Previous change ID found"})"));
  EXPECT_EQ(body_of(get("/replications/changeid?vm_path=/a")),
            Json::parse(R"({"vm_path":"/a","change_id":"",
                            "message":"No previous successful migration found"})"));
  expect_problem(get("/replications/changeid"), 400, "Missing vm_path parameter",
                 "missing_vm_path_parameter", "vm_path query parameter is required");
  EXPECT_CALL(engine_, change_id_by_path).WillOnce(Throw(std::runtime_error("x")));
  expect_problem(get("/replications/changeid?vm_path=/a"), 500, "Failed to get change ID",
                 "failed_to_get_change_id", "x");
}

class Telemetry : public ApiTest {
 protected:
  api::Response send(const std::string& body) { return post("/telemetry/backup/job-1", body); }
};

// A19, A32
TEST_F(Telemetry, TheClientsReportReachesTheEngine) {
  engine::Telemetry seen;
  EXPECT_CALL(engine_, record_telemetry("job-1", _))
      .WillOnce([&](const std::string&, const engine::Telemetry& report) { seen = report; });
  const auto answer = send(R"({"job_id":"job-1","job_type":"backup","status":"running",
    "current_phase":"transferring","bytes_transferred":500,"total_bytes":1000,
    "transfer_speed_bps":77,"eta_seconds":-1,"progress_percent":50.5,"disks":[],
    "timestamp":"2025-10-08T08:54:54Z"})");
  EXPECT_EQ(body_of(answer),
            Json::parse(R"({"status":"success","message":"Telemetry received and processed",
                            "timestamp":"2025-10-08T08:54:54Z"})"));
  EXPECT_EQ(seen.status, "running");
  EXPECT_EQ(seen.current_phase, "transferring");
  EXPECT_EQ(seen.bytes_transferred, 500u);
  EXPECT_EQ(seen.total_bytes, 1000u);
  EXPECT_EQ(seen.transfer_speed_bps, 77u);
  EXPECT_EQ(seen.eta_seconds, 0u);
  EXPECT_EQ(seen.progress_percent, 50.5);
  EXPECT_EQ(seen.error, std::nullopt);
}

TEST_F(Telemetry, AnErrorObjectIsPassedByItsMessage) {
  std::vector<std::optional<std::string>> errors;
  EXPECT_CALL(engine_, record_telemetry)
      .Times(3)
      .WillRepeatedly([&](const std::string&, const engine::Telemetry& report) {
        errors.push_back(report.error);
      });
  send(R"({"error":{"message":"VDDK failed","code":"E1","timestamp":"t"}})");
  send(R"({"error":{}})");
  send(R"({"error":null,"disks":null})");
  EXPECT_EQ(errors[0], "VDDK failed");
  EXPECT_TRUE(errors[1].has_value() && !errors[1]->empty());
  EXPECT_EQ(errors[2], std::nullopt);
}

TEST_F(Telemetry, BadReportsAreRefused) {
  EXPECT_CALL(engine_, record_telemetry).Times(0);
  for (const char* body : {"", "x", "[]", R"({"bytes_transferred":"1"})", R"({"disks":[1]})",
                           R"({"disks":[{"disk_index":"0"}]})", R"({"error":"text"})"}) {
    expect_problem(send(body), 400, "Invalid request body", "invalid_body");
  }
}

TEST_F(Telemetry, AnUnknownJobIs404) {
  const auto refusal = engine::refusals::telemetry_job_not_found("job-1");
  EXPECT_CALL(engine_, record_telemetry).WillOnce(Throw(refusal));
  expect_problem(send("{}"), 404, "job not found", "job_not_found");
  EXPECT_CALL(engine_, telemetry_history).WillOnce(Throw(refusal));
  expect_problem(get("/telemetry/history/job-1"), 404, "job not found", "job_not_found");
}

// A32
TEST_F(Telemetry, AHistoryIsAChartAndItsMeasures) {
  EXPECT_CALL(engine_, telemetry_history("backup-pgtest1-1759913694", 2))
      .WillOnce(Return(telemetry_history()));
  EXPECT_EQ(body_of(get("/telemetry/history/backup-pgtest1-1759913694?limit=2")), Json::parse(R"(
    {"job_id":"backup-pgtest1-1759913694","status":"running","data_source":"live_snapshots",
     "current_state":{"bytes_transferred":0,"total_bytes":114890375168,"transfer_speed_bps":0,
       "progress_percent":0,"current_phase":"running"},
     "chart_data":[{"t":30,"s":336392246,"p":50,"phase":"transferring","source":"client"},
                   {"t":35,"s":350000000,"p":55,"phase":"running","source":"server"}],
     "performance_metrics":{"duration_seconds":35,"snapshots_recorded":2,"peak_speed_bps":350000000,
       "avg_speed_bps":343196123,"min_speed_bps":336392246}})"));
  EXPECT_CALL(engine_, telemetry_history("a", 720)).WillOnce(Return(engine::TelemetryHistory{}));
  EXPECT_EQ(body_of(get("/telemetry/history/a"))["data_source"], "none");
  expect_problem(get("/telemetry/history/a?limit=x"), 400, "invalid limit", "invalid_query");
}

// Of the history's path there is a GET and nothing else.
TEST_F(Telemetry, PostToHistoryIsTheWrongMethod) {
  expect_problem(post("/telemetry/history/job-1", "{}"), 405, "method not allowed",
                 "method_not_allowed");
}

}  // namespace
}  // namespace api_tests
