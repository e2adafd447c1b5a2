// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// Lists by pages, filters, and where what was made is found.
namespace api_tests {
namespace {

class Paging : public ApiTest {
 protected:
  Paging() {
    for (const char* name : {"a", "b", "c", "d", "e"}) {
      engine::ListedVm listed;
      engine::Vm& vm = listed.vm;
      vm.vm_name = name;
      vm.vcenter_host = *name == 'c' ? "other" : "vc1";
      vm.current_status = *name == 'e' ? "failed" : "completed";
      vms_.push_back(listed);
    }
    ON_CALL(quiet_, vms).WillByDefault(Return(vms_));
  }
  /// The names on the page, and the total.
  std::pair<std::string, int> list(const std::string& query) {
    const Json body =
        body_of(paged_.handle({"GET", "/api/v1/vm-contexts" + query, "", "", "", true}));
    std::string names;
    for (const Json& vm : body["vm_contexts"]) names += vm["vm_name"];
    EXPECT_EQ(body["count"], names.size());
    return {names, body["total"]};
  }

  std::vector<engine::ListedVm> vms_;
  ::testing::NiceMock<MockEngine> quiet_;
  api::Api paged_{quiet_, settings()};
};

TEST_F(Paging, AListIsWholeUnlessItIsAskedForByPages) {
  using Listed = std::pair<std::string, int>;
  EXPECT_EQ(list(""), Listed("abcde", 5));
  EXPECT_EQ(list("?limit=2"), Listed("ab", 5));
  EXPECT_EQ(list("?limit=2&offset=4"), Listed("e", 5));
  EXPECT_EQ(list("?offset=3"), Listed("de", 5));
  EXPECT_EQ(list("?offset=9"), Listed("", 5));
  EXPECT_EQ(list("?limit=0"), Listed("", 5));
  expect_problem(paged_.handle({"GET", "/api/v1/vm-contexts?limit=-1", "", "", "", true}), 400,
                 "invalid limit", "invalid_query");
}

TEST_F(Paging, TheTotalIsOfWhatTheFiltersLeave) {
  using Listed = std::pair<std::string, int>;
  EXPECT_EQ(list("?vcenter_host=vc1&limit=2"), Listed("ab", 4));
  EXPECT_EQ(list("?vcenter_host=vc1&current_status=failed"), Listed("e", 1));
  EXPECT_EQ(list("?vm_name=x"), Listed("", 0));
  EXPECT_EQ(list("?vm_name="), Listed("abcde", 5));
}

TEST_F(Paging, AWordThatIsNoneIsRefused) {
  for (const char* target :
       {"/restores?state=gone", "/verifications?state=gone", "/nbd/exports?kind=gone"}) {
    EXPECT_EQ(paged_.handle({"GET", std::string("/api/v1") + target, "", "", "", true}).status,
              400);
  }
}

class Location : public ApiTest {
 protected:
  std::string of(const std::string& method, const std::string& target, const std::string& body) {
    const auto answer = made_.handle({method, "/api/v1" + target, "", "", body, true});
    for (const auto& [name, value] : answer.headers) {
      if (name == "Location") return value;
    }
    return answer.body;
  }
  ::testing::NiceMock<MockEngine> quiet_;
  api::Api made_{quiet_, settings()};
};

TEST_F(Location, IsWhereWhatWasMadeIsFound) {
  ON_CALL(quiet_, start_backup).WillByDefault(Return(running_backup()));
  engine::RestoreView restore;
  restore.restore.id = "restore-1";
  ON_CALL(quiet_, create_restore).WillByDefault(Return(restore));
  ON_CALL(quiet_, promote_restore).WillByDefault(Return(restore));
  engine::Verification verification;
  verification.id = "verify-1";
  ON_CALL(quiet_, verify).WillByDefault(Return(verification));
  engine::RepositoryView repository;
  repository.repository.id = "a b";
  ON_CALL(quiet_, create_repository).WillByDefault(Return(repository));
  engine::PutVmResult vm;
  vm.created = true;
  ON_CALL(quiet_, put_vm).WillByDefault(Return(vm));
  EXPECT_EQ(of("POST", "/backups", R"({"vm_name":"a","repository_id":"1","backup_type":"full"})"),
            "/api/v1/backups/backup-pgtest1-1759913694");
  EXPECT_EQ(of("POST", "/restores", R"({"backup_id":"a","mode":"read-only"})"),
            "/api/v1/restores/restore-1");
  EXPECT_EQ(of("POST", "/restores/restore-1/promote", R"({"path":"/srv/a"})"),
            "/api/v1/restores/restore-1");
  EXPECT_EQ(of("POST", "/backups/a/verify", ""), "/api/v1/verifications/verify-1");
  EXPECT_EQ(of("POST", "/verifications", ""), "/api/v1/verifications/verify-1");
  EXPECT_EQ(of("POST", "/repositories", R"({"name":"a","type":"local","config":{"path":"/a"}})"),
            "/api/v1/repositories/a%20b");
  EXPECT_EQ(
      of("PUT", "/vm-contexts/my%20vm",
         R"({"vm_path":"/a","vcenter_host":"h","disks":[{"disk_id":"disk-1","capacity_bytes":512}]})"),
      "/api/v1/vm-contexts/my%20vm");
}

}  // namespace
}  // namespace api_tests
