// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

namespace api_tests {
namespace {

namespace refusals = engine::refusals;
using Kind = engine::CredentialsChange::Kind;

Json good() {
  return Json::parse(R"(
{"vm_path":"/DC1/vm/pgtest1","vcenter_host":"vc1.example","credentials":{"ref":"vc1"},
 "disks":[{"disk_id":"disk-2000","capacity_bytes":109521666048,"unit_number":0,"label":"Hard disk 1"},{"disk_id":"disk-2001","capacity_bytes":5368709120}]})");
}

class VmContexts : public ApiTest {
 protected:
  api::Response put(const Json& body, const std::string& name = "pgtest1") {
    return request("PUT", "/api/v1/vm-contexts/" + name, body.dump());
  }
  engine::PutVmContext put_and_see(const Json& body, const std::string& name = "pgtest1") {
    engine::PutVmContext asked;
    EXPECT_CALL(engine_, put_vm).WillOnce([&](const engine::PutVmContext& request) {
      asked = request;
      return engine::PutVmResult{true, vm_view()};
    });
    EXPECT_EQ(put(body, name).status, 201);
    return asked;
  }
};

// A26
TEST_F(VmContexts, PutPassesTheWholeRegistration) {
  Json body = good();
  body["datacenter"] = "DC1";
  body["disks"][0]["datastore"] = "ds1";
  const engine::PutVmContext asked = put_and_see(body, "Web%20Server%2F01?move=true");
  EXPECT_EQ(asked.vm_name, "Web Server/01");
  EXPECT_EQ(asked.vm_path, "/DC1/vm/pgtest1");
  EXPECT_EQ(asked.vcenter_host, "vc1.example");
  EXPECT_EQ(asked.datacenter, "DC1");
  EXPECT_TRUE(asked.move);
  ASSERT_EQ(asked.disks.size(), 2u);
  EXPECT_EQ(asked.disks[0].disk_id, "disk-2000");
  EXPECT_EQ(asked.disks[0].capacity_bytes, 109521666048u);
  EXPECT_EQ(asked.disks[0].unit_number, 0);
  EXPECT_EQ(asked.disks[0].label, "Hard disk 1");
  EXPECT_EQ(asked.disks[0].datastore, "ds1");
  EXPECT_EQ(asked.disks[1].unit_number, std::nullopt);
}

// A26
TEST_F(VmContexts, CredentialsAreKeptRemovedReferencedOrGiven) {
  Json body = good();
  EXPECT_EQ(put_and_see(body).credentials.kind, Kind::reference);
  body["credentials"] = nullptr;
  EXPECT_EQ(put_and_see(body).credentials.kind, Kind::remove);
  body["credentials"] = {{"username", "u"}, {"password", "p"}};
  const auto given = put_and_see(body).credentials;
  EXPECT_EQ(given.kind, Kind::inline_secret);
  EXPECT_EQ(given.username, "u");
  EXPECT_EQ(given.password, "p");
  body.erase("credentials");
  EXPECT_EQ(put_and_see(body).credentials.kind, Kind::keep);
}

TEST_F(VmContexts, TheExpectedIntervalIsANumberTheDefaultOrAsBefore) {
  Json body = good();
  EXPECT_FALSE(put_and_see(body).expected_interval.is_given);
  body["expected_interval_seconds"] = 3600;
  EXPECT_EQ(put_and_see(body).expected_interval.seconds, 3600u);
  body["expected_interval_seconds"] = 0;
  EXPECT_EQ(put_and_see(body).expected_interval.seconds, 0u);
  body["expected_interval_seconds"] = nullptr;
  EXPECT_TRUE(put_and_see(body).expected_interval.is_given);
  EXPECT_EQ(put_and_see(body).expected_interval.seconds, std::nullopt);
}

// A26
TEST_F(VmContexts, ReplacingAnswers200) {
  EXPECT_CALL(engine_, put_vm).WillOnce(Return(engine::PutVmResult{false, vm_view()}));
  EXPECT_EQ(put(good()).status, 200);
}

// A26
TEST_F(VmContexts, BadRegistrationsNameTheMember) {
  EXPECT_CALL(engine_, put_vm).Times(0);
  const std::pair<const char*, const char*> rows[] = {
      {R"({"vm_path":"DC1/vm"})", "vm_path"},
      {R"({"vm_path":"/DC1/"})", "vm_path"},
      {R"({"vm_path":null})", "vm_path"},
      {R"({"vcenter_host":""})", "vcenter_host"},
      {R"({"disks":[]})", "disks"},
      {R"({"disks":null})", "disks"},
      {R"({"disks":[{"disk_id":"scsi0","capacity_bytes":512}]})", "disks[0].disk_id"},
      {R"({"disks":[{"disk_id":"disk-1234567890","capacity_bytes":512}]})", "disks[0].disk_id"},
      {R"({"disks":[{"disk_id":"disk-1","capacity_bytes":513}]})", "disks[0].capacity_bytes"},
      {R"({"disks":[{"disk_id":"disk-1","capacity_bytes":0}]})", "disks[0].capacity_bytes"},
      {R"({"disks":[{"disk_id":"disk-1","capacity_bytes":-512}]})", "disks[0].capacity_bytes"},
      {R"({"disks":[{"disk_id":"disk-1","capacity_bytes":512},
                    {"disk_id":"disk-1","capacity_bytes":512}]})",
       "disks[1].disk_id"},
      {R"({"credentials":{}})", "credentials"},
      {R"({"credentials":{"username":"u"}})", "credentials"},
      {R"({"credentials":{"ref":"r","username":"u","password":"p"}})", "credentials"},
      {R"({"expected_interval_seconds":-1})", "expected_interval_seconds"},
      {R"({"expected_interval_seconds":315360001})", "expected_interval_seconds"},
  };
  for (const auto& [patch, member] : rows) {
    Json body = good();
    const Json changes = Json::parse(patch);
    for (const auto& [name, value] : changes.items()) body[name] = value;
    SCOPED_TRACE(patch);
    const Json problem = expect_problem(put(body), 400, "invalid vm context", "invalid_vm_context");
    EXPECT_TRUE(problem["details"].get<std::string>().starts_with(member)) << problem["details"];
  }
  for (const std::string& name :
       {std::string(256, 'a'), std::string("a%0Ab"), std::string("a%00"), std::string("%FF")}) {
    expect_problem(put(good(), name), 400, "invalid vm context", "invalid_vm_context");
  }
}

TEST_F(VmContexts, WrongJsonTypesAreAnInvalidBody) {
  for (const char* body : {"", "{", R"({"disks":{}})", R"({"disks":[null]})",
                           R"({"credentials":"vc1"})", R"({"disks":[{"capacity_bytes":"512"}]})"}) {
    expect_problem(request("PUT", "/api/v1/vm-contexts/x", body), 400, "invalid request body",
                   "invalid_body");
  }
}

// A26
TEST_F(VmContexts, TheEnginesRefusalsOfAPut) {
  EXPECT_CALL(engine_, put_vm)
      .WillOnce(Throw(refusals::vm_backup_running("backup-a-1")))
      .WillOnce(Throw(refusals::vm_of_other_vcenter("vc2")));
  const Json running = expect_problem(put(good()), 409, "VM has a running backup",
                                      "vm_has_a_running_backup", "backup-a-1");
  EXPECT_EQ(running["backup_id"], "backup-a-1");
  expect_problem(put(good()), 409, "VM name already registered for another vCenter",
                 "vm_name_already_registered_for_another_vcenter");
}

// A32
TEST_F(VmContexts, OneIsShownWithItsDisksAndNoSecrets) {
  EXPECT_CALL(engine_, vm("pgtest1")).WillOnce(Return(vm_view()));
  EXPECT_EQ(body_of(get("/vm-contexts/pgtest1")), Json::parse(R"({"context":{
      "context_id":"ctx-pgtest1-20251006-203401","vm_name":"pgtest1","vmware_vm_id":"",
      "vm_path":"/DC1/vm/pgtest1","vcenter_host":"vc1.example","datacenter":"",
      "current_status":"discovered","current_job_id":null,"total_jobs_run":0,"successful_jobs":0,
      "failed_jobs":0,"last_successful_job_id":null,"cpu_count":0,"memory_mb":0,"os_type":"",
      "power_state":"","vm_tools_version":null,"expected_interval_seconds":90000,
      "last_good_at":null,"last_verified_at":null,"overdue":false,"secret_missing":false,
      "created_at":"2025-10-08T08:54:54Z",
      "updated_at":"2025-10-08T08:54:54Z","first_job_at":null,"last_job_at":null,
      "last_status_change":null,"auto_added":false,"scheduler_enabled":false,
      "next_scheduled_at":null,"last_scheduled_job_id":null,"ossea_config_id":null,
      "last_operation_summary":null,"credential_id":null,
      "credentials":{"kind":"reference","ref":"vc1"}},
    "job_history":[],
    "disks":[{"id":1,"vm_context_id":"ctx-pgtest1-20251006-203401","disk_id":"disk-2000",
        "disk_index":0,"vmware_disk_key":2000,"vmdk_path":"","size_gb":102,
        "capacity_bytes":109521666048,"datastore":"","unit_number":0,"label":"Hard disk 1",
        "disk_change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531","removed":false,
        "created_at":"2025-10-08T08:54:54Z","updated_at":"2025-10-08T08:54:54Z"},
      {"id":2,"vm_context_id":"ctx-pgtest1-20251006-203401","disk_id":"disk-2001",
        "disk_index":1,"vmware_disk_key":2001,"vmdk_path":"","size_gb":5,
        "capacity_bytes":5368709120,"datastore":"","unit_number":null,"label":"",
        "disk_change_id":"","removed":false,
        "created_at":"2025-10-08T08:54:54Z","updated_at":"2025-10-08T08:54:54Z"}],
    "cbt_history":[]})"));
}

TEST_F(VmContexts, AReferenceThatIsANumberIsTheCredentialId) {
  engine::VmView view = vm_view();
  view.vm.credentials.ref = "35";
  view.vm.current_job_id = "backup-pgtest1-1759913694";
  view.current_job = running_backup();
  view.job_history = {running_backup(), completed_backup()};
  EXPECT_CALL(engine_, vm_by_context_id("ctx")).WillOnce(Return(view));
  const Json body = body_of(get("/vm-contexts/by-id/ctx"));
  EXPECT_EQ(body["context"]["credential_id"], 35);
  EXPECT_EQ(body["context"]["current_job_id"], "backup-pgtest1-1759913694");
  EXPECT_EQ(body["current_job"]["status"], "running");
  EXPECT_EQ(body["job_history"].size(), 2u);
}

// A32
TEST_F(VmContexts, UnknownOnesAreNamedInTheText) {
  EXPECT_CALL(engine_, vm("x")).WillOnce(Throw(refusals::vm_context_not_found("x")));
  expect_problem(get("/vm-contexts/x"), 404, "VM context not found for: x", "vm_context_not_found");
  EXPECT_CALL(engine_, vm_by_context_id("x"))
      .WillOnce(Throw(refusals::vm_context_id_not_found("x")));
  expect_problem(get("/vm-contexts/by-id/x"), 404, "VM context not found for context_id: x",
                 "vm_context_not_found");
}

// A32
TEST_F(VmContexts, AListHasGroupsThatAreEmpty) {
  EXPECT_CALL(engine_, vms)
      .WillOnce(Return(std::vector{listed_vm(), engine::ListedVm{.vm = vm()}}))
      .WillOnce(Throw(std::runtime_error("x")));
  const Json body = body_of(get("/vm-contexts"));
  EXPECT_EQ(body["count"], 2);
  EXPECT_EQ(body["vm_contexts"][0]["vm_name"], "pgtest1");
  EXPECT_EQ(body["vm_contexts"][0]["groups"], Json::array());
  EXPECT_EQ(body["vm_contexts"][0]["group_count"], 0);
  EXPECT_EQ(body["vm_contexts"][0]["last_point"]["completed_at"], "2025-10-08T08:57:38Z");
  EXPECT_EQ(body["vm_contexts"][0]["last_point"]["chain_length"], 2);
  EXPECT_EQ(body["vm_contexts"][1]["last_point"], Json());
  expect_problem(get("/vm-contexts"), 500, "Failed to retrieve VM contexts",
                 "failed_to_retrieve_vm_contexts", "x");
}

// A32
TEST_F(VmContexts, DisksAreShort) {
  EXPECT_CALL(engine_, vm_disks("pgtest1")).WillOnce(Return(vm().disks));
  const Json body = body_of(get("/vm-contexts/pgtest1/disks"));
  EXPECT_EQ(body["count"], 2);
  EXPECT_EQ(body["disks"][0], Json::parse(R"({"disk_id":"disk-2000","size_gb":102,"disk_index":0,
    "vmware_disk_key":2000,"capacity_bytes":109521666048})"));
}

// A32
TEST_F(VmContexts, DeleteAnswersWithTheContextId) {
  EXPECT_CALL(engine_, delete_vm("x"))
      .WillOnce(Return("ctx-x"))
      .WillOnce(Throw(refusals::vm_has_backups("2 backups")));
  EXPECT_EQ(body_of(request("DELETE", "/api/v1/vm-contexts/x")),
            Json::parse(R"({"message":"VM context deleted","context_id":"ctx-x"})"));
  expect_problem(request("DELETE", "/api/v1/vm-contexts/x"), 409, "VM has backups",
                 "vm_has_backups", "2 backups");
}

}  // namespace
}  // namespace api_tests
