// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

namespace api_tests {
namespace {

namespace refusals = engine::refusals;

class Repositories : public ApiTest {
 protected:
  static Json problem(const api::Response& response, int status, const std::string& error,
                      const std::string& code) {
    const Json document = expect_problem(response, status, error, code);
    EXPECT_EQ(document.value("success", true), false) << response.body;
    return document;
  }
  static Json local(const char* path = "/backup/second") {
    return {{"name", "second"}, {"type", "local"}, {"config", {{"path", path}}}};
  }
};

// A32
TEST_F(Repositories, OneIsShownWithItsStorage) {
  EXPECT_CALL(engine_, repository("1")).WillOnce(Return(repository()));
  EXPECT_EQ(body_of(get("/repositories/1")), Json::parse(R"({"success":true,"repository":{
    "id":"1","name":"default","type":"local","enabled":true,"available":true,
    "config":{"path":"/backup/repository"},"is_immutable":false,"min_retention_days":0,"storage_info":{"repository_id":"1",
      "total_bytes":1000000000,"used_bytes":250000000,"available_bytes":750000000,
      "used_percent":25,"backup_count":3,"last_check_at":"2025-10-08T08:54:54Z"},
    "created_at":"2025-10-08T08:54:54Z","updated_at":"2025-10-08T08:54:54Z"}})"));
  EXPECT_CALL(engine_, repository("9")).WillOnce(Throw(refusals::unknown_repository("9")));
  problem(get("/repositories/9"), 404, "Repository not found: 9", "repository_not_found");
}

TEST_F(Repositories, APasswordSecretIsNeverReturned) {
  engine::RepositoryView view = repository();
  view.repository.config_json = R"({"server":"s","password_secret":"hunter2"})";
  EXPECT_CALL(engine_, repository).WillOnce(Return(view));
  EXPECT_EQ(get("/repositories/1").body.find("hunter2"), std::string::npos);
}

// A32
TEST_F(Repositories, OneIsCreatedWithDefaults) {
  engine::NewRepository asked;
  EXPECT_CALL(engine_, create_repository).WillOnce([&](const engine::NewRepository& request) {
    asked = request;
    return repository();
  });
  const Json body = body_of(post("/repositories", local().dump()), 201);
  EXPECT_EQ(body["success"], true);
  EXPECT_EQ(body["repository"]["id"], "1");
  EXPECT_EQ(asked.id, "");
  EXPECT_EQ(asked.name, "second");
  EXPECT_EQ(asked.directory, "/backup/second");
  EXPECT_EQ(asked.config_json, R"({"path":"/backup/second"})");
  EXPECT_TRUE(asked.enabled);
  EXPECT_FALSE(asked.is_immutable);
}

TEST_F(Repositories, ANetworkRepositoryWorksInItsMountPoint) {
  engine::NewRepository asked;
  EXPECT_CALL(engine_, create_repository).WillOnce([&](const engine::NewRepository& request) {
    asked = request;
    return repository();
  });
  post("/repositories",
       R"({"id":"nas","name":"nas","type":"smb","enabled":false,"is_immutable":true,
    "min_retention_days":7,"config":{"server":"nas","share_name":"b","mount_point":"/mnt/nas",
    "username":"u","password_secret":"hunter2","unknown":1}})");
  EXPECT_EQ(asked.type, engine::RepositoryType::smb);
  EXPECT_EQ(asked.directory, "/mnt/nas");
  EXPECT_EQ(asked.config_json.find("hunter2"), std::string::npos);
  EXPECT_EQ(asked.config_json.find("unknown"), std::string::npos);
  EXPECT_FALSE(asked.enabled);
  EXPECT_TRUE(asked.is_immutable);
  EXPECT_EQ(asked.min_retention_days, 7);
}

// A32
TEST_F(Repositories, BadOnesAreRefusedInTheOldWords) {
  EXPECT_CALL(engine_, create_repository).Times(0);
  const std::tuple<const char*, const char*, const char*> rows[] = {
      {R"({"type":"local"})", "Repository name is required", "repository_name_is_required"},
      {R"({"name":"x"})", "Repository type is required", "repository_type_is_required"},
      {R"({"name":"x","type":"s3"})", "Unsupported repository type: s3",
       "unsupported_repository_type"},
      {R"({"name":"x","type":"local"})", "Invalid local repository config: path is required",
       "invalid_local_repository_config"},
      {R"({"name":"x","type":"local","config":{"path":"relative"}})",
       "Invalid local repository config: path must be an absolute path",
       "invalid_local_repository_config"},
      {R"({"name":"x","type":"local","config":{"path":"/a/../b"}})",
       "Invalid local repository config: path must not contain '..'",
       "invalid_local_repository_config"},
      {R"({"name":"x","type":"nfs","config":{"server":"s"}})",
       "Invalid NFS repository config: export_path is required", "invalid_nfs_repository_config"},
      {R"({"name":"x","type":"cifs","config":{"server":"s"}})",
       "Invalid CIFS repository config: share_name is required", "invalid_cifs_repository_config"},
      {R"({"name":"x","type":"smb","config":{"server":"s","share_name":"n","mount_point":"m"}})",
       "Invalid CIFS repository config: mount_point must be an absolute path",
       "invalid_cifs_repository_config"},
      {R"({"name":7})", "Invalid request body: member 'name' must be a string", "invalid_body"},
      {R"({"name":"x","type":"local","config":{"path":1}})",
       "Invalid request body: member 'config.path' must be a string", "invalid_body"},
      {R"({"id":"a/b","name":"x","type":"local","config":{"path":"/p"}})",
       "Invalid request body: id must have at most 64 letters, digits, '.', '_' and '-'",
       "invalid_body"},
      {R"({"name":"x","type":"local","config":{"path":"/p"},"min_retention_days":-1})",
       "Invalid request body: min_retention_days must be 0 to 36500", "invalid_body"},
  };
  for (const auto& [body, error, code] : rows)
    problem(post("/repositories", body), 400, error, code);
  const auto broken = post("/repositories", "{");
  EXPECT_EQ(broken.status, 400);
  EXPECT_TRUE(Json::parse(broken.body)["error"].get<std::string>().starts_with(
      "Invalid request body: parse error"));
}

TEST_F(Repositories, CreatingFailsWithTheCauseInTheText) {
  EXPECT_CALL(engine_, create_repository)
      .WillOnce(Throw(refusals::repository_name_taken()))
      .WillOnce(Throw(std::runtime_error("disk I/O error")));
  problem(post("/repositories", local().dump()), 409,
          "Failed to register repository: name already exists", "failed_to_register_repository");
  problem(post("/repositories", local().dump()), 500,
          "Failed to register repository: disk I/O error", "failed_to_register_repository");
}

// A32
TEST_F(Repositories, AListFilters) {
  engine::RepositoryFilter asked;
  EXPECT_CALL(engine_, repositories)
      .Times(2)
      .WillRepeatedly([&](const engine::RepositoryFilter& filter) {
        asked = filter;
        return std::vector{repository()};
      });
  EXPECT_EQ(body_of(get("/repositories"))["repositories"].size(), 1u);
  EXPECT_FALSE(asked.type || asked.enabled);
  get("/repositories?type=nfs&enabled=false");
  EXPECT_EQ(asked.type, engine::RepositoryType::nfs);
  EXPECT_EQ(asked.enabled, false);
  EXPECT_EQ(body_of(get("/repositories?type=s3")),
            Json::parse(R"({"success":true,"repositories":[],"total":0})"));
  problem(get("/repositories?enabled=maybe"), 400, "invalid enabled", "invalid_query");
  EXPECT_CALL(engine_, repositories).WillOnce(Throw(std::runtime_error("x")));
  problem(get("/repositories"), 500, "Failed to list repositories: x",
          "failed_to_list_repositories");
}

// A32
TEST_F(Repositories, StorageIsMeasured) {
  EXPECT_CALL(engine_, repository_storage("1"))
      .WillOnce(Return(storage()))
      .WillOnce(Return(engine::StorageInfo{"1", 0, 0, 0, 0, sample_time()}))
      .WillOnce(Throw(std::runtime_error("statfs")));
  EXPECT_EQ(body_of(get("/repositories/1/storage")), Json::parse(R"({"repository_id":"1",
    "total_bytes":1000000000,"used_bytes":250000000,"available_bytes":750000000,
    "used_percent":25,"backup_count":3,"last_check_at":"2025-10-08T08:54:54Z"})"));
  EXPECT_EQ(body_of(get("/repositories/1/storage"))["used_percent"], 0);
  problem(get("/repositories/1/storage"), 500, "Failed to get storage info: statfs",
          "failed_to_get_storage_info");
}

// A32
TEST_F(Repositories, ATestThatFailsIsAnAnswerAndNoError) {
  EXPECT_CALL(engine_, test_repository(::testing::An<const engine::NewRepository&>()))
      .WillOnce(Return(engine::RepositoryTest{
          true, storage(), "", engine::StorageAbilities{true, true, true, false, true}}))
      .WillOnce(Return(engine::RepositoryTest{false, std::nullopt, "open: No such file"}));
  const Json passed = body_of(post("/repositories/test", local().dump()));
  EXPECT_EQ(passed["success"], true);
  EXPECT_EQ(passed["message"], "Repository configuration is valid and connection test passed");
  EXPECT_EQ(passed["storage_info"]["total_bytes"], 1000000000);
  EXPECT_EQ(passed["capabilities"]["direct_io"], Json::parse(R"({"supported":true})"));
  EXPECT_EQ(passed["capabilities"]["locks"]["supported"], false);
  EXPECT_NE(passed["capabilities"]["locks"]["consequence"], "");
  EXPECT_EQ(passed["capabilities"].size(), 5u);
  EXPECT_EQ(body_of(post("/repositories/test", local().dump())),
            Json::parse(R"({"success":false,"message":"Repository test failed",
                            "error_details":"open: No such file"})"));
  problem(post("/repositories/test", "{}"), 400, "Repository type is required",
          "repository_type_is_required");
  EXPECT_CALL(engine_, test_repository(::testing::An<const std::string&>()))
      .WillOnce(Return(engine::RepositoryTest{true, storage(), ""}))
      .WillOnce(Throw(refusals::unknown_repository("two")));
  EXPECT_EQ(body_of(post("/repositories/two/test"))["success"], true);
  problem(post("/repositories/two/test"), 404, "Repository not found: two", "repository_not_found");
}

// A32
TEST_F(Repositories, RefreshAndDeleteSayWhatTheyDid) {
  EXPECT_CALL(engine_, refresh_storage).WillOnce(Return(engine::StorageRefresh{2, 0}));
  EXPECT_EQ(body_of(post("/repositories/refresh-storage")), Json::parse(R"({"success":true,
    "message":"Storage information refreshed for 2 repositories","refreshed_count":2,
    "failed_count":0})"));
  EXPECT_CALL(engine_, delete_repository("two"))
      .WillOnce(Return())
      .WillOnce(Throw(refusals::repository_has_backups("3 backups")));
  EXPECT_EQ(
      body_of(request("DELETE", "/api/v1/repositories/two")),
      Json::parse(R"({"success":true,"message":"Repository deleted successfully","id":"two"})"));
  problem(request("DELETE", "/api/v1/repositories/two"), 409,
          "Cannot delete repository with existing backups",
          "cannot_delete_repository_with_existing_backups");
}

}  // namespace
}  // namespace api_tests
