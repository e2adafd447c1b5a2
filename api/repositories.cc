// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "api/answers_setup.h"
#include "api/paging.h"
#include "api/read_setup.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Repositories. Spec: docs/http-api.md.
namespace api {
namespace {

constexpr const char* kInvalidRepository = "Invalid request body: ";

template <typename T>
Json success(const T&) {
  return true;
}

const Object<engine::RepositoryView>& answer_object() {
  using V = engine::RepositoryView;
  static const Object<V> object(
      "RepositoryAnswer", "",
      {{"success", "boolean", "", success<V>},
       {"repository", "Repository", "", [](const V& v) { return repository_object().json(v); }}});
  return object;
}

const Object<Page<engine::RepositoryView>>& repositories_object() {
  using Views = Page<engine::RepositoryView>;
  static const Object<Views> object(
      "RepositoryList", "",
      {{"success", "boolean", "", success<Views>},
       {"repositories", "[Repository]", "",
        [](const Views& views) { return repository_object().list(views.shown); }},
       {"total", "integer", "matches before limit and offset", &Views::total}});
  return object;
}

Response create_repository(const Call& call) {
  const auto request = new_repository(call.body("NewRepository", kInvalidRepository));
  const engine::RepositoryView made = call.engine.create_repository(request);
  return created_response(201, answer_object().json(made), "repositories", made.repository.id);
}

Response list_repositories(const Call& call) {
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
  std::vector<engine::RepositoryView> found;
  if (can_match) found = call.engine.repositories(filter);
  return json_response(200, repositories_object().json(page_of(call, std::move(found))));
}

Response get_repository(const Call& call) {
  return json_response(200, answer_object().json(call.engine.repository(call.variable("id"))));
}

Response storage(const Call& call) {
  return json_response(200,
                       storage_object().json(call.engine.repository_storage(call.variable("id"))));
}

Response test_new(const Call& call) {
  const auto request = repository_to_test(call.body("TestRepository", kInvalidRepository));
  return json_response(200, repository_test_object().json(call.engine.test_repository(request)));
}

Response test_known(const Call& call) {
  return json_response(
      200, repository_test_object().json(call.engine.test_repository(call.variable("id"))));
}

const Object<engine::StorageRefresh>& refresh_object() {
  using R = engine::StorageRefresh;
  static const Object<R> object("StorageRefresh", "",
                                {{"success", "boolean", "", success<R>},
                                 {"message", "string", "",
                                  [](const R& r) {
                                    return fmt::format(
                                        "Storage information refreshed for {} repositories",
                                        r.refreshed_count);
                                  }},
                                 {"refreshed_count", "integer", "", &R::refreshed_count},
                                 {"failed_count", "integer", "", &R::failed_count}});
  return object;
}

Response refresh(const Call& call) {
  return json_response(200, refresh_object().json(call.engine.refresh_storage()));
}

struct DeletedRepository {
  std::string id;
};

const Object<DeletedRepository>& deleted_repository_object() {
  static const Object<DeletedRepository> object(
      "RepositoryDeleted", "Its files stay.",
      {{"success", "boolean", "", success<DeletedRepository>},
       {"message", "string", "",
        [](const DeletedRepository&) { return "Repository deleted successfully"; }},
       {"id", "string", "", &DeletedRepository::id}});
  return object;
}

Response remove_repository(const Call& call) {
  const std::string& id = call.variable("id");
  call.engine.delete_repository(id);
  return json_response(200, deleted_repository_object().json({id}));
}

}  // namespace

std::vector<Schema> repository_answers() {
  std::vector<Schema> schemas = schemas_of(answer_object(), repositories_object(), refresh_object(),
                                           deleted_repository_object());
  for (Schema& schema : repository_object_schemas()) schemas.push_back(std::move(schema));
  return schemas;
}

const std::vector<Route>& repository_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/repositories",
       .operation = "createRepository",
       .scope = Scope::admin,
       .handler = create_repository,
       .summary = "Add a repository",
       .status = 201,
       .answer = "RepositoryAnswer",
       .body = "NewRepository",
       .failure = "Failed to register repository: ",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/repositories",
       .operation = "listRepositories",
       .scope = Scope::read,
       .handler = list_repositories,
       .summary = "List repositories",
       .answer = "RepositoryList",
       .query =
           {{"type", "string:local,nfs,cifs,smb", ""}, {"enabled", "boolean", ""}, kLimit, kOffset},
       .failure = "Failed to list repositories: "},
      {.method = "POST",
       .pattern = "/api/v1/repositories/test",
       .operation = "testNewRepository",
       .scope = Scope::admin,
       .handler = test_new,
       .summary = "Try a configuration out",
       .answer = "RepositoryTest",
       .body = "TestRepository",
       .failure = "Failed to test repository: ",
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/repositories/refresh-storage",
       .operation = "refreshStorage",
       .scope = Scope::admin,
       .handler = refresh,
       .summary = "Measure the space of every repository",
       .answer = "StorageRefresh",
       .failure = "Failed to refresh storage information: ",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/repositories/{id}",
       .operation = "getRepository",
       .scope = Scope::read,
       .handler = get_repository,
       .summary = "One repository",
       .answer = "RepositoryAnswer",
       .failure = "Failed to get repository: "},
      {.method = "DELETE",
       .pattern = "/api/v1/repositories/{id}",
       .operation = "deleteRepository",
       .scope = Scope::admin,
       .handler = remove_repository,
       .summary = "Forget a repository; its files stay",
       .answer = "RepositoryDeleted",
       .failure = "Failed to delete repository: "},
      {.method = "GET",
       .pattern = "/api/v1/repositories/{id}/storage",
       .operation = "getStorage",
       .scope = Scope::read,
       .handler = storage,
       .summary = "Measure the space of a repository",
       .answer = "StorageInfo",
       .failure = "Failed to get storage info: ",
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/repositories/{id}/test",
       .operation = "testRepository",
       .scope = Scope::admin,
       .handler = test_known,
       .summary = "Write, fsync, read and remove a file there",
       .answer = "RepositoryTest",
       .failure = "Failed to test repository: ",
       .waits_for = WaitsFor::storage},
  };
  return routes;
}

}  // namespace api
