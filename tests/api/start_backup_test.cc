// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

namespace api_tests {
namespace {

using engine::Refusal;
namespace refusals = engine::refusals;

constexpr const char* kGood = R"({"vm_name":"pgtest1","repository_id":"1","backup_type":"full"})";

class StartBackup : public ApiTest {};

// A2: the checks that need no engine, in the order of docs/http-api.md, "Start".
TEST_F(StartBackup, WhatIsWrongWithTheBodyIsSaidInTheOrderOfTheTable) {
  EXPECT_CALL(engine_, start_backup).Times(0);
  const struct {
    const char *body, *error, *code, *details;
  } rows[] = {
      {"{", "invalid request body", "invalid_body", ""},
      {"", "invalid request body", "invalid_body", ""},
      {"[]", "invalid request body", "invalid_body", "the body must be an object"},
      {R"({"vm_name":1})", "invalid request body", "invalid_body",
       "member 'vm_name' must be a string"},
      {R"({"tags":{"a":1}})", "invalid request body", "invalid_body",
       "member 'tags.a' must be a string"},
      {R"({"tags":[]})", "invalid request body", "invalid_body", "member 'tags' must be an object"},
      {"{}", "vm_name is required", "missing_field", ""},
      {R"({"vm_name":null})", "vm_name is required", "missing_field", ""},
      {R"({"vm_name":"a","backup_type":"x"})", "repository_id is required", "missing_field", ""},
      {R"({"vm_name":"a","repository_id":"1"})", "backup_type must be 'full' or 'incremental'",
       "invalid_backup_type", ""},
      {R"({"vm_name":"a","repository_id":"1","backup_type":"differential"})",
       "backup_type must be 'full' or 'incremental'", "invalid_backup_type", ""},
      {R"({"vm_name":"a","repository_id":"1","backup_type":"full","client":"x"})",
       "client must be 'node' or 'external'", "invalid_client", ""},
  };
  for (const auto& [body, error, code, details] : rows) {
    SCOPED_TRACE(body);
    const Json problem = expect_problem(post("/backups", body), 400, error, code, details);
    EXPECT_EQ(problem["instance"], "/api/v1/backups");
  }
}

TEST_F(StartBackup, AtMost64Tags) {
  Json body = Json::parse(kGood);
  for (int i = 0; i < 64; ++i) body["tags"]["tag" + std::to_string(i)] = "";
  EXPECT_CALL(engine_, start_backup).WillOnce(Return(running_backup()));
  EXPECT_EQ(post("/backups", body.dump()).status, 200);
  body["tags"]["one more"] = "";
  expect_problem(post("/backups", body.dump()), 400, "invalid request body", "invalid_body");
}

// A2: the rest of that table, as the engine says it.
TEST_F(StartBackup, EveryRefusalOfTheEngineKeepsItsTextsAndGetsItsStatus) {
  const struct {
    Refusal refusal;
    int status;
    const char *error, *code, *details;
  } rows[] = {
      {refusals::vm_not_found("x"), 404, "VM not found", "vm_not_found", "no VM 'x'"},
      {refusals::vm_ambiguous("x", {"ctx-a", "ctx-b"}), 409, "VM name is ambiguous", "vm_ambiguous",
       "'x' is ctx-a, ctx-b"},
      {refusals::no_disks(), 404, "No disks found for VM", "no_disks",
       "VM has no disks in database - ensure VM discovery completed"},
      {refusals::vm_disks_unreadable("disk I/O error"), 500, "failed to get VM disks",
       "catalogue_error", "disk I/O error"},
      {refusals::repository_not_found("9"), 404, "repository not found", "repository_not_found",
       "no repository '9'"},
      {refusals::repository_disabled("9"), 409, "repository is disabled", "repository_disabled",
       "repository '9'"},
      {refusals::backup_already_running("backup-a-1"), 409, "backup already running",
       "backup_running", "backup-a-1"},
      {refusals::no_previous_backup(), 400, "no previous backup found", "no_parent",
       "full backup required before incremental"},
      {refusals::base_is_not_the_parent("b", 0, "the parent is backup 'a' with change id 'u/1'"),
       409, "base is not the parent", "base_mismatch",
       "disk 0: the parent is backup 'a' with change id 'u/1', not 'b'"},
      {refusals::vm_has_no_vcenter("x"), 400, "VM is registered without a vCenter", "no_vcenter",
       "'x' has no vcenter_host, so no node can be called for it"},
      {refusals::credentials_missing(), 400, "VM context missing credential_id", "no_credentials",
       ""},
      {refusals::credentials_unresolved("no secret 'vc1'"), 500, "failed to get VMware credentials",
       "credentials_error", "no secret 'vc1'"},
      {refusals::shutting_down(), 503, "server is shutting down", "shutting_down", ""},
      {refusals::no_space(1, 2, 3), 507, "insufficient space in repository", "no_space",
       "1 bytes free, 2 bytes in reserve, 3 bytes missing"},
      {refusals::no_ports(10100, 10200), 503, "no available NBD ports", "no_ports",
       "no available ports in range 10100-10200 (all 101 ports allocated)"},
      {refusals::backup_context_not_created("c"), 500, "failed to create backup context",
       "catalogue_error", "c"},
      {refusals::backup_job_not_created("c"), 500, "failed to create parent backup job",
       "catalogue_error", "c"},
      {refusals::disk_not_prepared("backup-a-1", "disk 0: locked"), 500,
       "failed to prepare backup disk", "prepare_failed", "disk 0: locked"},
      {refusals::node_unreachable("backup-a-1", "timeout"), 500, "failed to call SNA API",
       "node_unreachable", "timeout"},
      {refusals::node_refused("backup-a-1", 400, std::string(600, 'x')), 500, "SNA API error",
       "node_refused", nullptr},
  };
  for (const auto& [refusal, status, error, code, details] : rows) {
    SCOPED_TRACE(error);
    EXPECT_CALL(engine_, start_backup).WillOnce(Throw(refusal));
    const Json problem =
        expect_problem(post("/backups", kGood), status, error, code, details ? details : "");
    EXPECT_EQ(problem.value("backup_id", ""), refusal.backup_id);
    EXPECT_EQ(problem["hint"], refusal.hint);
  }
}

TEST_F(StartBackup, OfTheNodesTextOnly512BytesAreRepeated) {
  const Refusal refusal = refusals::node_refused("backup-a-1", 400, std::string(600, 'x'));
  EXPECT_EQ(refusal.details, "status: 400 " + std::string(512, 'x'));
}

TEST_F(StartBackup, TheEngineIsAskedForWhatTheBodySaysAndUnknownMembersAreIgnored) {
  engine::StartBackup asked;
  EXPECT_CALL(engine_, start_backup).WillOnce([&](const engine::StartBackup& request) {
    asked = request;
    return running_backup();
  });
  const auto answer = post("/backups", R"({"vm_name":"pgtest1","backup_type":"incremental",
      "repository_id":"1","policy_id":"p","tags":{"a":"b"},"surprise":[1]})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(asked.vm_name, "pgtest1");
  EXPECT_EQ(asked.backup_type, engine::BackupType::incremental);
  EXPECT_EQ(asked.repository_id, "1");
  EXPECT_EQ(asked.policy_id, "p");
  EXPECT_EQ(asked.tags, (engine::Tags{{"a", "b"}}));
}

TEST_F(StartBackup, ABaseIsHandedOnAndBelongsToAnIncremental) {
  engine::StartBackup asked;
  EXPECT_CALL(engine_, start_backup).WillOnce([&](const engine::StartBackup& request) {
    asked = request;
    return running_backup();
  });
  post("/backups", R"({"vm_name":"pgtest1","backup_type":"incremental","repository_id":"1",
                       "base":"backup-pgtest1-1"})");
  EXPECT_EQ(asked.base, "backup-pgtest1-1");
  expect_problem(post("/backups", R"({"vm_name":"pgtest1","backup_type":"full",
                                      "repository_id":"1","base":"backup-pgtest1-1"})"),
                 400, "base needs backup_type 'incremental'", "base_without_incremental");
  expect_problem(post("/backups", R"({"vm_name":"pgtest1","backup_type":"incremental",
                                      "repository_id":"1","base":7})"),
                 400, "invalid request body", "invalid_body", "member 'base' must be a string");
}

TEST_F(StartBackup, AResumedOneMayHaveABaseAndNothingElse) {
  engine::StartBackup asked;
  EXPECT_CALL(engine_, start_backup).WillOnce([&](const engine::StartBackup& request) {
    asked = request;
    return running_backup();
  });
  EXPECT_EQ(post("/backups", R"({"resume":"backup-1","base":"u/1"})").status, 200);
  EXPECT_EQ(asked.resume, "backup-1");
  EXPECT_EQ(asked.base, "u/1");
  expect_problem(post("/backups", R"({"resume":"backup-1","base":"u/1","vm_name":"pgtest1"})"), 400,
                 "resume goes with base and no other member", "resume_with_others");
}

// A5: a whole answer, member by member.
TEST_F(StartBackup, TheAnswerIsTheContractsExample) {
  EXPECT_CALL(engine_, start_backup).WillOnce(Return(running_backup()));
  const Json expected = Json::parse(R"(
{"backup_id":"backup-pgtest1-1759913694","vm_context_id":"ctx-pgtest1-20251006-203401","vm_name":"pgtest1",
 "disk_results":[
  {"disk_id":0,"nbd_port":10100,"nbd_export_name":"pgtest1-1759913694-disk0","qcow2_path":"/backup/repository/ctx-pgtest1-20251006-203401/disk-0/backup-pgtest1-disk0-20251008-085454.qcow2","qemu_nbd_pid":4242,"status":"prepared"},
  {"disk_id":1,"nbd_port":10101,"nbd_export_name":"pgtest1-1759913694-disk1","qcow2_path":"/backup/repository/ctx-pgtest1-20251006-203401/disk-1/backup-pgtest1-disk1-20251008-085454.qcow2","qemu_nbd_pid":4242,"status":"prepared"}],
 "nbd_targets_string":"2000:nbd://127.0.0.1:10100/pgtest1-1759913694-disk0,2001:nbd://127.0.0.1:10101/pgtest1-1759913694-disk1",
 "backup_type":"full","type":"full","client":"node","repository_id":"1","status":"started","state":"running","bytes_transferred":0,"bytes_zeroed":0,"bytes_elided":0,"bytes_stored":0,"total_bytes":114890375168,"disks_count":2,
 "current_phase":"running","transfer_speed_bps":0,"progress_percent":0,"created_at":"2025-10-08T08:54:54Z","started_at":"2025-10-08T08:54:54Z",
 "file_path":"/multi-disk-parent"})");
  EXPECT_EQ(body_of(post("/backups", kGood)), expected);
}

TEST_F(StartBackup, AFailureThatIsNoRefusalIsA500WithItsCause) {
  EXPECT_CALL(engine_, start_backup).WillOnce(Throw(std::runtime_error("the ring is gone")));
  expect_problem(post("/backups", kGood), 500, "internal error", "internal_error",
                 "the ring is gone");
}

}  // namespace
}  // namespace api_tests
