// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

namespace api_tests {
namespace {

namespace refusals = engine::refusals;
using ::testing::ElementsAre;

constexpr const char* kId = "backup-pgtest1-1759913694";

class Backups : public ApiTest {};

// A5
TEST_F(Backups, ACompletedOneHasItsTypesAndNoTargets) {
  EXPECT_CALL(engine_, backup(kId)).WillOnce(Return(completed_backup()));
  const Json backup = body_of(get(std::string("/backups/") + kId));
  EXPECT_EQ(backup["status"], "completed");
  EXPECT_EQ(backup["nbd_targets_string"], "");
  EXPECT_EQ(backup["change_id"], kChangeId);
  EXPECT_EQ(backup["bytes_transferred"], 2001);
  EXPECT_EQ(backup["completed_at"], "2025-10-08T08:57:38Z");
  EXPECT_EQ(backup["disk_results"][1]["status"], "completed");
  EXPECT_EQ(backup["disk_results"][1]["nbd_port"], 0);
  for (const char* left_out :
       {"policy_id", "error_message", "last_telemetry_at", "tags", "warnings"}) {
    EXPECT_FALSE(backup.contains(left_out)) << left_out;
  }
}

// A5
TEST_F(Backups, AFailedOneShowsEveryMemberThatMayBeLeftOut) {
  EXPECT_CALL(engine_, backup).WillOnce(Return(failed_backup()));
  const Json backup = body_of(get("/backups/x"));
  const Json expected = Json::parse(R"({
    "policy_id":"policy-1","status":"failed","state":"failed","type":"incremental",
    "error_message":"No space left on device","current_phase":"transferring","total_bytes":4096,
    "transfer_speed_bps":77,"progress_percent":12.5,"last_telemetry_at":"2025-10-08T08:55:24Z",
    "completed_at":"2025-10-08T08:55:54Z","tags":{"owner":"ops"},
    "warnings":[{"code":"disk_added","disk_id":0,"message":"disk-2000 is new"},
                {"code":"change_id_unusable","disk_id":null,"message":"no slash"}]})");
  for (const auto& [name, value] : expected.items()) EXPECT_EQ(backup[name], value) << name;
  EXPECT_EQ(backup["file_path"], backup["disk_results"][0]["qcow2_path"]);
  EXPECT_EQ(backup["disk_results"][0]["error_message"], "write at 65536: No space left on device");
}

TEST_F(Backups, StatusIsTheCoarseWordOfTheState) {
  const std::pair<engine::JobState, const char*> words[] = {
      {engine::JobState::preparing, "pending"},  {engine::JobState::running, "running"},
      {engine::JobState::finalizing, "running"}, {engine::JobState::completed, "completed"},
      {engine::JobState::failed, "failed"},      {engine::JobState::cancelled, "cancelled"}};
  for (const auto& [state, word] : words) {
    engine::BackupView view = running_backup();
    view.job.state = state;
    EXPECT_CALL(engine_, backup).WillOnce(Return(view));
    EXPECT_EQ(body_of(get("/backups/x"))["status"], word);
  }
}

TEST_F(Backups, AnUnknownOneIsTheContractsProblem) {
  EXPECT_CALL(engine_, backup("backup-x-1"))
      .WillOnce(Throw(refusals::backup_not_found("backup-x-1")));
  const auto answer = get("/backups/backup-x-1");
  expect_problem(answer, 404, "backup not found", "backup_not_found");
  EXPECT_EQ(Json::parse(answer.body), Json::parse(R"(
{"type":"urn:varve:error:backup-not-found","title":"backup not found","status":404,"detail":"no backup 'backup-x-1'","instance":"/api/v1/backups/backup-x-1",
 "code":"backup_not_found","hint":"List backups with GET /api/v1/backups.","error":"backup not found","details":"no backup 'backup-x-1'","timestamp":"2025-10-08T08:54:54Z"})"));
}

// A31
TEST_F(Backups, AListPassesAllItsFiltersTogether) {
  engine::BackupFilter asked;
  EXPECT_CALL(engine_, list_backups).WillOnce([&](const engine::BackupFilter& filter) {
    asked = filter;
    return engine::BackupList{{completed_backup()}, 7};
  });
  const Json list =
      body_of(get("/backups?vm_name=Web+Server%2001&vm_context_id=c&repository_id=1&status=failed"
                  "&backup_type=full&limit=5&offset=6&unknown=1"));
  EXPECT_EQ(asked.vm_name, "Web Server 01");
  EXPECT_EQ(asked.vm_context_id, "c");
  EXPECT_EQ(asked.repository_id, "1");
  EXPECT_EQ(asked.status, engine::ShownStatus::failed);
  EXPECT_EQ(asked.backup_type, engine::BackupType::full);
  EXPECT_EQ(asked.limit, 5u);
  EXPECT_EQ(asked.offset, 6u);
  EXPECT_EQ(list["total"], 7);
  EXPECT_EQ(list["backups"][0]["backup_id"], kId);
}

// A31
TEST_F(Backups, AListWithoutFiltersAsksForTheNewestHundred) {
  engine::BackupFilter asked;
  EXPECT_CALL(engine_, list_backups).WillOnce([&](const engine::BackupFilter& filter) {
    asked = filter;
    return engine::BackupList{};
  });
  EXPECT_EQ(body_of(get("/backups")), Json::parse(R"({"backups":[],"total":0})"));
  EXPECT_EQ(asked.limit, 100u);
  EXPECT_FALSE(asked.status || asked.backup_type);
}

// A31
TEST_F(Backups, AListRefusesWordsAndNumbersThatAreNone) {
  for (const auto& [name, value] : {std::pair{"status", "started"},
                                    {"backup_type", "copy"},
                                    {"limit", "-1"},
                                    {"limit", "1x"},
                                    {"offset", "99999999999999999999"}}) {
    expect_problem(get(std::string("/backups?") + name + "=" + value), 400,
                   std::string("invalid ") + name, "invalid_query");
  }
  EXPECT_CALL(engine_, list_backups).WillOnce(Throw(refusals::vm_not_found("x")));
  expect_problem(get("/backups?vm_name=x"), 404, "VM not found", "vm_not_found");
  EXPECT_CALL(engine_, list_backups).WillOnce(Throw(std::runtime_error("disk I/O error")));
  expect_problem(get("/backups"), 500, "failed to list backups", "failed_to_list_backups",
                 "disk I/O error");
}

// A32
TEST_F(Backups, DisksShowTheirBytesAndParents) {
  EXPECT_CALL(engine_, backup_disks(kId)).WillOnce(Return(std::vector{backup_disk()}));
  EXPECT_EQ(body_of(get(std::string("/backups/") + kId + "/disks")), Json::parse(R"(
    {"backup_id":"backup-pgtest1-1759913694","count":1,"disks":[{
      "disk_index":0,"vmware_disk_key":2000,"size_gb":102,"capacity_bytes":109521666048,
      "qcow2_path":"/backup/repository/ctx-pgtest1-20251006-203401/disk-0/backup-pgtest1-disk0-20251008-085454.qcow2",
      "status":"running","state":"transferring","error_message":"","backup_type":"incremental",
      "image_id":"backup-pgtest1-disk0-20251008-085454",
      "parent_image_id":"backup-pgtest1-disk0-20251007-085454",
      "parent_backup_id":"backup-pgtest1-1759827294","change_id":"",
      "handed_out_change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531",
      "bytes_received":1048576,"bytes_zeroed":65536,"bytes_elided":0,"bytes_stored":917504,
      "signals":{"change_share":8.377374387254903e-06,"incompressible_share":0.9375,
        "zero_share":0.058823529411764705,"elided_share":0.0,
        "flags":[{"flag":"encrypted","reason":"disk 0: looks encrypted: 94 % of the data…"}]},
      "history":[{"backup_id":"backup-pgtest1-1759913694","backup_type":"full",
        "completed_at":"2025-10-07T08:54:54Z",
        "signals":{"change_share":0.00980392156862745,"incompressible_share":null,
          "zero_share":null,"elided_share":0.0,"flags":[]}}],
      "progress_percent":12.5,"connections":2,"last_request_at":"2025-10-08T08:55:03Z"}]})"));
}

// A28, A29
TEST_F(Backups, AChainIsSeenFromOneDisk) {
  EXPECT_CALL(engine_, chain).WillOnce(Return(chain()));
  const Json body = body_of(get("/backups/chain?vm_name=pgtest1&disk_id=1"));
  EXPECT_EQ(body["chain_id"], "ctx-pgtest1-20251006-203401-disk1-chain");
  EXPECT_EQ(body["generation"], 1);
  EXPECT_EQ(body["full_backup_id"], kId);
  EXPECT_EQ(body["latest_backup_id"], "backup-pgtest1-1760000101");
  EXPECT_EQ(body["backup_count"], 2);
  EXPECT_EQ(body["total_size_bytes"], 2 * 114890375168);
  EXPECT_EQ(body["allocated_bytes"], 2 * 200704);
  const Json& next = body["backups"][1];
  EXPECT_EQ(next["backup_id"], "backup-pgtest1-1760000101");
  EXPECT_EQ(next["parent_backup_id"], kId);
  EXPECT_EQ(next["change_id"], "aa bb/8");
  EXPECT_EQ(next["image_id"], "backup-pgtest1-disk1-20251009-085501");
  EXPECT_EQ(body["backups"][0]["parent_backup_id"], "");
  EXPECT_EQ(body["backups"][0]["file_path"], completed_backup().job.disks[1].image_path);
}

// A28
TEST_F(Backups, ThePathNamesTheVmUnlessTheQueryDoes) {
  std::vector<std::string> names, contexts;
  EXPECT_CALL(engine_, chain).Times(4).WillRepeatedly([&](const engine::ChainQuery& query) {
    names.push_back(query.vm_name);
    contexts.push_back(query.vm_context_id);
    return engine::ChainView{};
  });
  get("/backups/a%20b/chain");
  get("/backups/a/chain?vm_name=b");
  get("/backups/a/chain?vm_context_id=ctx");
  get("/backups/chain?vm_name=stats");
  EXPECT_THAT(names, ElementsAre("a b", "b", "", "stats"));
  EXPECT_THAT(contexts, ElementsAre("", "", "ctx", ""));
}

// A28, A29
TEST_F(Backups, AChainQueryHasDefaultsAndLimits) {
  engine::ChainQuery asked;
  EXPECT_CALL(engine_, chain).Times(2).WillRepeatedly([&](const engine::ChainQuery& query) {
    asked = query;
    return engine::ChainView{};
  });
  const Json empty = body_of(get("/backups/chain?vm_name=x"));
  EXPECT_EQ(asked.disk_id, 0u);
  EXPECT_FALSE(asked.generation);
  EXPECT_EQ(empty["chain_id"], "");
  EXPECT_EQ(empty["backups"], Json::array());
  EXPECT_EQ(empty["backup_count"], 0);
  get("/backups/chain?vm_context_id=c&repository_id=2&disk_id=3&generation=2");
  EXPECT_EQ(asked.repository_id, "2");
  EXPECT_EQ(asked.disk_id, 3u);
  EXPECT_EQ(asked.generation, 2u);
  expect_problem(get("/backups/chain"), 400, "vm_context_id or vm_name is required",
                 "invalid_query");
  expect_problem(get("/backups/chain?vm_name=x&disk_id=disk-2000"), 400, "invalid disk_id",
                 "invalid_query");
  EXPECT_CALL(engine_, chain).WillOnce(Throw(refusals::vm_not_found("x")));
  expect_problem(get("/backups/chain?vm_name=x"), 404, "VM not found", "vm_not_found");
  EXPECT_CALL(engine_, chain).WillOnce(Throw(std::runtime_error("c")));
  expect_problem(get("/backups/chain?vm_name=x"), 500, "failed to get backup chain",
                 "failed_to_get_backup_chain", "c");
}

// A32
TEST_F(Backups, StatisticsNeedBothNames) {
  EXPECT_CALL(engine_, backup_stats("pgtest1", "1"))
      .WillOnce(Return(engine::BackupStats{3, 20401094656, sample_time()}))
      .WillOnce(Return(engine::BackupStats{}));
  EXPECT_EQ(body_of(get("/backups/stats?vm_name=pgtest1&repository_id=1")),
            Json::parse(R"({"backup_count":3,"total_size_bytes":20401094656,
                            "last_backup_at":"2025-10-08T08:54:54Z"})"));
  EXPECT_EQ(body_of(get("/backups/stats?vm_name=pgtest1&repository_id=1"))["last_backup_at"], "");
  expect_problem(get("/backups/stats?vm_name=pgtest1"), 400,
                 "vm_name and repository_id are required", "missing_field");
}

TEST_F(Backups, DaysAreSummedUpForWhatIsAskedFor) {
  EXPECT_CALL(engine_, backup_days).WillOnce([](const engine::BackupDaysQuery& query) {
    EXPECT_EQ(query.vm_name, "a");
    EXPECT_EQ(query.repository_id, "2");
    EXPECT_EQ(query.days, 7u);
    return std::vector{engine::BackupDay{sample_time(), 2, 4002, 2000, 18}};
  });
  EXPECT_EQ(body_of(get("/backups/by-day?vm_name=a&repository_id=2&days=7")),
            Json::parse(R"({"days":[{"date":"2025-10-08","backup_count":2,"bytes_received":4002,
                                     "bytes_stored":2000,"seconds":18}]})"));
  for (const char* days : {"0", "-1", "x", "3661"}) {
    expect_problem(get(std::string("/backups/by-day?days=") + days), 400, "invalid days",
                   "invalid_query");
  }
}

class CompleteBackup : public ApiTest {
 protected:
  api::Response complete(const std::string& body) {
    return post(std::string("/backups/") + kId + "/complete", body);
  }
};

// A18, A24
TEST_F(CompleteBackup, AnAbsentDiskIdIsNotZero) {
  std::vector<engine::CompleteDisk> asked;
  EXPECT_CALL(engine_, complete).Times(3).WillRepeatedly([&](const engine::CompleteDisk& request) {
    asked.push_back(request);
    return engine::CompletedDisk{1, engine::JobState::running, 1, 2};
  });
  complete(R"({"change_id":"a b/1"})");
  complete(R"({"change_id":"a b/1","disk_id":0,"bytes_transferred":0})");
  complete(R"({"change_id":"a b/1","disk_id":null})");
  EXPECT_EQ(asked[0].backup_id, kId);
  EXPECT_EQ(asked[0].disk_id, std::nullopt);
  EXPECT_EQ(asked[1].disk_id, 0u);
  EXPECT_EQ(asked[2].disk_id, std::nullopt);
}

// A23, A25
TEST_F(CompleteBackup, TheAnswerRepeatsTheChangeIdByteForByte) {
  EXPECT_CALL(engine_, complete)
      .WillOnce(Return(engine::CompletedDisk{1, engine::JobState::completed, 2, 2}));
  EXPECT_EQ(body_of(complete(Json{{"change_id", kChangeId}, {"disk_id", 1}}.dump())),
            Json::parse(R"({"status":"completed","backup_id":"backup-pgtest1-1759913694",
              "change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531","disk_id":1,
              "job_status":"completed","disks_completed":2,"disks_total":2,
              "message":"Backup completed successfully, change_id recorded",
              "timestamp":"2025-10-08T08:54:54Z"})"));
}

TEST_F(CompleteBackup, JobStatusIsRunningUntilTheLastDisk) {
  EXPECT_CALL(engine_, complete)
      .WillOnce(Return(engine::CompletedDisk{0, engine::JobState::running, 1, 2}));
  EXPECT_EQ(body_of(complete(R"({"change_id":"x"})"))["job_status"], "running");
}

TEST_F(CompleteBackup, BadRequestsNeverReachTheEngine) {
  EXPECT_CALL(engine_, complete).Times(0);
  expect_problem(complete("no json"), 400, "invalid request body", "invalid_body");
  expect_problem(complete(R"({"change_id":7})"), 400, "invalid request body", "invalid_body");
  expect_problem(complete(R"({"change_id":"a","disk_id":"0"})"), 400, "invalid request body",
                 "invalid_body", "member 'disk_id' must be an integer");
  for (const char* body : {"{}", R"({"change_id":""})"}) {
    expect_problem(complete(body), 400, "missing change_id", "missing_change_id",
                   "change_id field is required");
  }
  for (const char* body :
       {R"({"change_id":"a","disk_id":-1})", R"({"change_id":"a","disk_id":4294967296})"}) {
    expect_problem(complete(body), 404, "backup job not found", "job_not_found");
  }
}

// A24
TEST_F(CompleteBackup, RefusalsAndFailuresHaveTheirCodes) {
  const std::tuple<engine::Refusal, int, const char*, const char*> rows[] = {
      {refusals::job_not_found(kId, "d"), 404, "backup job not found", "job_not_found"},
      {refusals::job_not_running(kId, "d"), 409, "backup is not running", "job_not_running"},
      {refusals::change_id_conflict(kId, "d"), 409, "disk already completed", "change_id_conflict"},
      {refusals::disk_never_connected(kId, "d"), 409, "disk received no data",
       "disk_never_connected"},
      {refusals::complete_failed(kId, "d"), 500, "failed to complete backup", "seal_failed"}};
  for (const auto& [refusal, status, error, code] : rows) {
    EXPECT_CALL(engine_, complete).WillOnce(Throw(refusal));
    const Json problem = expect_problem(complete(R"({"change_id":"a"})"), status, error, code, "d");
    EXPECT_EQ(problem["backup_id"], kId);
  }
  EXPECT_CALL(engine_, complete).WillOnce(Throw(std::runtime_error("d")));
  expect_problem(complete(R"({"change_id":"a"})"), 500, "failed to complete backup", "seal_failed",
                 "d");
}

// A48
TEST_F(Backups, CancelTakesAReasonOrNoBodyAtAll) {
  EXPECT_CALL(engine_, cancel(kId, "maintenance"));
  const auto answer =
      post(std::string("/backups/") + kId + "/cancel", R"({"reason":"maintenance"})");
  EXPECT_EQ(body_of(answer), Json::parse(R"({"status":"cancelled","message":"backup cancelled",
    "backup_id":"backup-pgtest1-1759913694","timestamp":"2025-10-08T08:54:54Z"})"));
  EXPECT_CALL(engine_, cancel("x", ""))
      .WillOnce(Return())
      .WillOnce(Throw(refusals::backup_not_found("x")))
      .WillOnce(Throw(refusals::job_not_running("x", "completed")));
  EXPECT_EQ(post("/backups/x/cancel").status, 200);
  expect_problem(post("/backups/x/cancel"), 404, "backup not found", "backup_not_found");
  expect_problem(post("/backups/x/cancel", "{}"), 409, "backup is not running", "job_not_running",
                 "completed");
  expect_problem(post("/backups/x/cancel", R"({"reason":1})"), 400, "invalid request body",
                 "invalid_body");
}

// A30
TEST_F(Backups, DeleteSaysWhatWentAndWhatItFreed) {
  EXPECT_CALL(engine_, delete_backup("x", true))
      .WillOnce(Return(engine::DeletedBackup{{"z", "x"}, 4096}));
  EXPECT_EQ(body_of(request("DELETE", "/api/v1/backups/x?cascade=true")),
            Json::parse(R"({"message":"backup deleted successfully","backup_id":"x",
                            "deleted":["z","x"],"freed_bytes":4096})"));
}

// A30
TEST_F(Backups, DeleteRefusesInTheContractsWords) {
  const std::tuple<engine::Refusal, int, const char*, const char*> rows[] = {
      {refusals::backup_not_found("x"), 404, "backup not found", "backup_not_found"},
      {refusals::backup_is_running("x"), 409, "backup is running", "backup_is_running"},
      {refusals::backup_has_dependents("x", {"y", "z"}), 409, "backup has dependents",
       "backup_has_dependents"},
      {refusals::backup_is_immutable("x", "younger than 7 days"), 409, "backup is immutable",
       "backup_is_immutable"},
      {refusals::backup_is_in_use("x", "export e"), 409, "backup is in use", "backup_is_in_use"}};
  for (const auto& [refusal, status, error, code] : rows) {
    EXPECT_CALL(engine_, delete_backup("x", false)).WillOnce(Throw(refusal));
    expect_problem(request("DELETE", "/api/v1/backups/x"), status, error, code, refusal.details);
  }
  EXPECT_CALL(engine_, delete_backup).WillOnce(Throw(std::runtime_error("unlink")));
  expect_problem(request("DELETE", "/api/v1/backups/x"), 500, "failed to delete backup",
                 "failed_to_delete_backup", "unlink");
  const auto hint = refusals::backup_has_dependents("x", {"y"}).hint;
  EXPECT_NE(hint.find("cascade"), std::string::npos);
}

}  // namespace
}  // namespace api_tests
