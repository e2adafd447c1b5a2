#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/json_setup.h"
#include "api/routes.h"

/// Repositories. Spec: docs/http-api.md.
namespace api {
namespace {

constexpr const char* kInvalidBody = "Invalid request body: ";

Json wrapped(const engine::RepositoryView& repository) {
  return {{"success", true}, {"repository", to_json(repository)}};
}

Response create(const Call& call) {
  const auto request = new_repository(call.body("NewRepository", kInvalidBody));
  return json_response(201, wrapped(call.engine.create_repository(request)));
}

Response list(const Call& call) {
  engine::RepositoryFilter filter;
  bool can_match = true;
  if (const std::string type = call.query("type"); !type.empty()) {
    filter.type = engine::from_text<engine::RepositoryType>(type);
    can_match = filter.type.has_value();  // nothing has a type that there is not
  }
  if (const std::string enabled = call.query("enabled"); !enabled.empty()) {
    if (enabled != "true" && enabled != "false") throw Call::invalid_query("enabled");
    filter.enabled = enabled == "true";
  }
  Json found = Json::array();
  if (can_match) {
    for (const auto& repository : call.engine.repositories(filter)) {
      found.push_back(to_json(repository));
    }
  }
  return json_response(200, {{"success", true}, {"repositories", std::move(found)}});
}

Response get(const Call& call) {
  return json_response(200, wrapped(call.engine.repository(call.variable("id"))));
}

Response storage(const Call& call) {
  return json_response(200, to_json(call.engine.repository_storage(call.variable("id"))));
}

Response test_new(const Call& call) {
  const auto request = repository_to_test(call.body("TestRepository", kInvalidBody));
  return json_response(200, to_json(call.engine.test_repository(request)));
}

Response test_known(const Call& call) {
  return json_response(200, to_json(call.engine.test_repository(call.variable("id"))));
}

Response refresh(const Call& call) {
  const engine::StorageRefresh done = call.engine.refresh_storage();
  return json_response(200,
                       {{"success", true},
                        {"message", fmt::format("Storage information refreshed for {} repositories",
                                                done.refreshed_count)},
                        {"refreshed_count", done.refreshed_count},
                        {"failed_count", done.failed_count}});
}

Response remove(const Call& call) {
  const std::string& id = call.variable("id");
  call.engine.delete_repository(id);
  return json_response(
      200, {{"success", true}, {"message", "Repository deleted successfully"}, {"id", id}});
}

}  // namespace

const std::vector<Route>& repository_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/repositories",
       .handler = create,
       .summary = "Add a repository",
       .status = 201,
       .answer = "RepositoryAnswer",
       .body = "NewRepository",
       .failure = "Failed to register repository: ",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/repositories",
       .handler = list,
       .summary = "List repositories",
       .answer = "RepositoryList",
       .query = {{"type", "string:local,nfs,cifs,smb", ""}, {"enabled", "boolean", ""}},
       .failure = "Failed to list repositories: "},
      {.method = "POST",
       .pattern = "/api/v1/repositories/test",
       .handler = test_new,
       .summary = "Try a configuration out",
       .answer = "RepositoryTest",
       .body = "TestRepository",
       .failure = "Failed to test repository: ",
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/repositories/refresh-storage",
       .handler = refresh,
       .summary = "Measure the space of every repository",
       .answer = "StorageRefresh",
       .failure = "Failed to refresh storage information: ",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/repositories/{id}",
       .handler = get,
       .summary = "One repository",
       .answer = "RepositoryAnswer",
       .failure = "Failed to get repository: "},
      {.method = "DELETE",
       .pattern = "/api/v1/repositories/{id}",
       .handler = remove,
       .summary = "Forget a repository; its files stay",
       .answer = "RepositoryDeleted",
       .failure = "Failed to delete repository: "},
      {.method = "GET",
       .pattern = "/api/v1/repositories/{id}/storage",
       .handler = storage,
       .summary = "Measure the space of a repository",
       .answer = "StorageInfo",
       .failure = "Failed to get storage info: ",
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/repositories/{id}/test",
       .handler = test_known,
       .summary = "Write, fsync, read and remove a file there",
       .answer = "RepositoryTest",
       .failure = "Failed to test repository: ",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
