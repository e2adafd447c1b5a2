// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <set>

#include "api/schema.h"
#include "api_fixture.h"
#include "json_schema.h"
#include "sample_engine.h"

/// A32: the document describes the routes, and what they answer is as it says.
namespace api_tests {
namespace {

class OpenApi : public ApiTest {
 protected:
  OpenApi() {
    answer_with_samples(samples_);
    document_ = Json::parse(sampled_.handle({"GET", "/openapi.json", "", "", "", true}).body);
  }

  ::testing::NiceMock<MockEngine> samples_;
  api::Api sampled_{samples_, settings()};
  Json document_;
};

std::string lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) c = static_cast<char>(std::tolower(c));
  return lowered;
}

// Every "$ref" in the document.
void collect_references(const Json& value, std::set<std::string>& found) {
  if (value.is_object() && value.contains("$ref")) found.insert(value["$ref"]);
  if (!value.is_structured()) return;
  for (const Json& member : value) collect_references(member, found);
}

TEST_F(OpenApi, EqualsTheRoutes) {
  std::set<std::string> described, routed;
  for (const auto& [path, operations] : document_["paths"].items()) {
    for (const auto& [method, operation] : operations.items())
      described.insert(method + " " + path);
  }
  for (const api::Route& route : api::all_routes()) {
    if (route.is_page) continue;  // files for a browser, no operations
    EXPECT_TRUE(routed.insert(lower(route.method) + " " + std::string(route.pattern)).second)
        << route.pattern << " is there twice";
  }
  EXPECT_EQ(described, routed);
  EXPECT_EQ(document_["openapi"], "3.1.0");
  EXPECT_EQ(document_["info"]["version"], "1.2.3");
  EXPECT_EQ(document_,
            Json::parse(sampled_.handle({"GET", "/api/v1/openapi.json", "", "", "", true}).body));
}

// Every endpoint of docs/http-api.md, written down a second time.
TEST_F(OpenApi, HasEveryEndpointOfTheContract) {
  const std::set<std::string> contract = {"post /backups",
                                          "get /backups",
                                          "get /backups/{backup_id}",
                                          "delete /backups/{backup_id}",
                                          "get /backups/{backup_id}/disks",
                                          "post /backups/{backup_id}/complete",
                                          "post /backups/{backup_id}/cancel",
                                          "get /backups/stats",
                                          "get /backups/by-day",
                                          "get /backups/chain",
                                          "get /backups/{vm_name}/chain",
                                          "get /points",
                                          "post /restores",
                                          "get /restores",
                                          "get /restores/{restore_id}",
                                          "delete /restores/{restore_id}",
                                          "post /restores/{restore_id}/promote",
                                          "delete /restores/{restore_id}/promote",
                                          "post /backups/{backup_id}/verify",
                                          "post /verifications",
                                          "get /verifications",
                                          "get /verifications/{verification_id}",
                                          "delete /verifications/{verification_id}",
                                          "get /vm-contexts/{vm}/wanted",
                                          "get /backups/{backup_id}/changes",
                                          "get /backups/changeid",
                                          "get /replications/changeid",
                                          "post /telemetry/{job_type}/{job_id}",
                                          "get /telemetry/history/{job_id}",
                                          "post /repositories",
                                          "get /repositories",
                                          "get /repositories/{id}",
                                          "delete /repositories/{id}",
                                          "get /repositories/{id}/storage",
                                          "post /repositories/test",
                                          "post /repositories/{id}/test",
                                          "post /repositories/refresh-storage",
                                          "get /vm-contexts",
                                          "put /vm-contexts/{vm_name}",
                                          "get /vm-contexts/{vm_name}",
                                          "delete /vm-contexts/{vm_name}",
                                          "get /vm-contexts/by-id/{context_id}",
                                          "get /vm-contexts/{vm}/disks",
                                          "get /nbd/exports",
                                          "get /nbd/ports/status",
                                          "get /events",
                                          "get /health",
                                          "get /openapi.json"};
  const std::set<std::string> at_root = {"get /health", "get /livez", "get /readyz", "get /metrics",
                                         "get /openapi.json"};
  std::set<std::string> wanted = at_root;
  for (const std::string& entry : contract) {
    std::string placed = entry;
    wanted.insert(placed.insert(placed.find('/'), "/api/v1"));
  }
  std::set<std::string> routed;
  for (const api::Route& route : api::all_routes()) {
    if (route.is_page) continue;
    routed.insert(lower(route.method) + " " + std::string(route.pattern));
  }
  EXPECT_EQ(routed, wanted);
}

TEST_F(OpenApi, EveryReferenceResolvesAndEverySchemaIsUsed) {
  std::set<std::string> used;
  collect_references(document_, used);
  std::set<std::string> defined;
  for (const auto& [name, schema] : document_["components"]["schemas"].items()) {
    defined.insert("#/components/schemas/" + name);
  }
  EXPECT_EQ(used, defined);
  EXPECT_EQ(defined.size(), api::all_schemas().size());
}

TEST_F(OpenApi, EveryVariableOfAPathIsAParameter) {
  for (const auto& [path, operations] : document_["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string rebuilt = path;
      for (const Json& parameter : operation.value("parameters", Json::array())) {
        if (parameter["in"] != "path") continue;
        const std::string name = "{" + parameter["name"].get<std::string>() + "}";
        ASSERT_NE(rebuilt.find(name), std::string::npos) << path;
        rebuilt.erase(rebuilt.find(name), name.size());
      }
      EXPECT_EQ(rebuilt.find('{'), std::string::npos) << method << " " << path;
      EXPECT_FALSE(operation["summary"].get<std::string>().empty());
    }
  }
}

TEST_F(OpenApi, EveryOperationHasANameOfItsOwn) {
  std::set<std::string> names;
  for (const auto& [path, operations] : document_["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      const std::string name = operation["operationId"];
      EXPECT_TRUE(names.insert(name).second) << name << " is there twice";
      EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
                name.npos)
          << name;
    }
  }
  const auto is_described = [](const api::Route& route) { return !route.is_page; };
  EXPECT_EQ(names.size(), std::ranges::count_if(api::all_routes(), is_described));
  EXPECT_FALSE(names.contains(""));
}

// Who only looks on changes nothing, and who backs up neither restores nor deletes.
TEST_F(OpenApi, EveryRouteSaysWhichScopeItNeeds) {
  const std::set<std::string> of_backups = {"startBackup",     "completeDisk", "cancelBackup",
                                            "recordTelemetry", "getChangeId",  "getChangeIdByPath"};
  for (const api::Route& route : api::all_routes()) {
    if (route.is_page) continue;  // needs no token
    SCOPED_TRACE(std::string(route.method) + " " + std::string(route.pattern));
    ASSERT_TRUE(route.scope.has_value());
    api::Scope wanted = route.method == "GET" ? api::Scope::read : api::Scope::admin;
    if (route.method != "GET" && route.pattern.starts_with("/api/v1/restores")) {
      wanted = api::Scope::restore;
    }
    if (of_backups.contains(std::string(route.operation))) wanted = api::Scope::backup;
    EXPECT_EQ(api::to_text(*route.scope), api::to_text(wanted));
    const Json& operation = document_["paths"][std::string(route.pattern)][lower(route.method)];
    EXPECT_EQ(operation["security"][0]["token"], Json::array({api::to_text(wanted)}));
  }
}

// A5 and A32: each answer has the members and types that its schema names, and no others.
TEST_F(OpenApi, EveryAnswerFitsItsSchema) {
  const std::tuple<std::string, std::string, std::string> requests[] = {
      {"POST", "/api/v1/backups", R"({"vm_name":"a","repository_id":"1","backup_type":"full"})"},
      {"GET", "/api/v1/backups", ""},
      {"GET", "/api/v1/backups/a", ""},
      {"GET", "/api/v1/backups/failed", ""},
      {"GET", "/api/v1/backups/a/disks", ""},
      {"DELETE", "/api/v1/backups/a", ""},
      {"POST", "/api/v1/backups/a/complete", R"({"change_id":"a/1"})"},
      {"POST", "/api/v1/backups/a/cancel", ""},
      {"GET", "/api/v1/backups/stats?vm_name=a&repository_id=1", ""},
      {"GET", "/api/v1/backups/by-day", ""},
      {"GET", "/api/v1/backups/chain?vm_name=a", ""},
      {"GET", "/api/v1/backups/a/chain", ""},
      {"GET", "/api/v1/points", ""},
      {"POST", "/api/v1/restores", R"({"backup_id":"a","mode":"writable"})"},
      {"GET", "/api/v1/restores", ""},
      {"GET", "/api/v1/restores/a", ""},
      {"DELETE", "/api/v1/restores/a", ""},
      {"POST", "/api/v1/restores/a/promote", R"({"path":"/srv/a.qcow2"})"},
      {"DELETE", "/api/v1/restores/a/promote", ""},
      {"POST", "/api/v1/backups/a/verify", ""},
      {"POST", "/api/v1/verifications", R"({"vm_name":"a","skip_days":7})"},
      {"GET", "/api/v1/verifications", ""},
      {"GET", "/api/v1/verifications/a", ""},
      {"DELETE", "/api/v1/verifications/a", ""},
      {"GET", "/api/v1/vm-contexts/a/wanted", ""},
      {"GET", "/api/v1/backups/a/changes?since=b", ""},
      {"GET", "/api/v1/backups/changeid?vm_name=a", ""},
      {"GET", "/api/v1/replications/changeid?vm_path=/a&disk_id=disk-1", ""},
      {"POST", "/api/v1/telemetry/backup/a", "{}"},
      {"GET", "/api/v1/telemetry/history/a", ""},
      {"POST", "/api/v1/repositories", R"({"name":"a","type":"local","config":{"path":"/a"}})"},
      {"GET", "/api/v1/repositories", ""},
      {"GET", "/api/v1/repositories/1", ""},
      {"DELETE", "/api/v1/repositories/1", ""},
      {"GET", "/api/v1/repositories/1/storage", ""},
      {"POST", "/api/v1/repositories/test", R"({"type":"local","config":{"path":"/a"}})"},
      {"POST", "/api/v1/repositories/1/test", ""},
      {"POST", "/api/v1/repositories/refresh-storage", ""},
      {"GET", "/api/v1/vm-contexts", ""},
      {"PUT", "/api/v1/vm-contexts/a",
       R"({"vm_path":"/a","vcenter_host":"h","disks":[{"disk_id":"disk-1","capacity_bytes":512}]})"},
      {"GET", "/api/v1/vm-contexts/a", ""},
      {"DELETE", "/api/v1/vm-contexts/a", ""},
      {"GET", "/api/v1/vm-contexts/by-id/a", ""},
      {"GET", "/api/v1/vm-contexts/a/disks", ""},
      {"GET", "/api/v1/nbd/exports", ""},
      {"GET", "/api/v1/nbd/ports/status", ""},
      {"GET", "/health", ""},
      {"GET", "/api/v1/health", ""},
      {"GET", "/livez", ""},
      {"GET", "/readyz", ""},
  };
  std::set<const api::Route*> seen;
  for (const auto& [method, target, body] : requests) {
    SCOPED_TRACE(method + " " + target);
    const api::Request request{method, target, "", "", body, true};
    const api::Route* const route = sampled_.route_of(request);
    ASSERT_TRUE(route);
    seen.insert(route);
    const auto answer = sampled_.handle(request);
    ASSERT_EQ(answer.status, route->status) << answer.body;
    const Json& responses =
        document_["paths"][std::string(route->pattern)][lower(method)]["responses"];
    const Json schema =
        responses[std::to_string(answer.status)]["content"]["application/json"]["schema"];
    ASSERT_TRUE(schema.contains("$ref"));
    EXPECT_EQ(schema_fault(Json::parse(answer.body), schema, document_), "");
  }
  for (const api::Route& route : api::all_routes()) {
    const bool is_text = route.answer.empty();
    EXPECT_TRUE(is_text || seen.contains(&route)) << route.pattern << " was not tried";
  }
}

TEST_F(OpenApi, EveryProblemFitsItsSchema) {
  const Json& schema = document_["components"]["schemas"]["Problem"];
  for (const char* target :
       {"/api/v1/backups/backup-x-1", "/nowhere", "/api/v1/repositories/a/b/c"}) {
    const auto answer = sampled_.handle({"GET", target, "", "", "", true});
    EXPECT_EQ(answer.status, 404);
    EXPECT_EQ(schema_fault(Json::parse(answer.body), schema, document_), "");
  }
}

// The judge itself must be able to say no.
TEST_F(OpenApi, TheSchemaCheckFindsFaults) {
  const Json schema = {{"$ref", "#/components/schemas/BackupStats"}};
  const Json good = {{"backup_count", 1}, {"total_size_bytes", 2}, {"last_backup_at", ""}};
  EXPECT_EQ(schema_fault(good, schema, document_), "");
  for (const char* patch : {R"({"backup_count":"1"})", R"({"backup_count":null})", R"({"more":1})",
                            R"({"total_size_bytes":1.5})"}) {
    Json bad = good;
    bad.update(Json::parse(patch));
    EXPECT_NE(schema_fault(bad, schema, document_), "") << patch;
  }
  EXPECT_NE(schema_fault({{"backup_count", 1}}, schema, document_), "");
  EXPECT_NE(
      schema_fault("2025-10-08 08:54", {{"type", "string"}, {"format", "date-time"}}, document_),
      "");
}

}  // namespace
}  // namespace api_tests
