// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "api/match.h"
#include "api_fixture.h"

/// Paths, methods, tokens, origins, and what every error looks like. A33.
namespace api_tests {
namespace {

using ::testing::NiceMock;

class Routing : public ApiTest {
 protected:
  static std::string header(const api::Response& response, const std::string& name) {
    for (const auto& [key, value] : response.headers) {
      if (key == name) return value;
    }
    return "";
  }
};

TEST_F(Routing, UnknownPathsAre404) {
  for (const char* target :
       {"", "*", "/api/v1", "/api/v1/", "/api/v1/policies", "/api/v1/backups/", "//health",
        "/api/v1/backups/a/copy", "/api/v1/backups/a/copies", "/api/v1/replications/x",
        "/api/v1/nbd/ports/allocate", "/api/v1/nbd/qemu-nbd/x", "/api/v1/backups//disks",
        "/backups", "/metrics/", "/api/v2/backups", "/api/v1/backups/a%2Fdisks/x"}) {
    expect_problem(request("GET", target), 404, "not found", "not_found");
  }
}

TEST_F(Routing, AKnownPathWithAnotherMethodSaysWhichAreAllowed) {
  const std::tuple<const char*, const char*, const char*> rows[] = {
      {"PATCH", "/api/v1/backups", "POST, GET, HEAD"},
      {"PUT", "/api/v1/backups/a", "GET, HEAD, DELETE"},
      {"DELETE", "/api/v1/backups/stats", "GET, HEAD"},  // the literal wins, not {backup_id}
      {"GET", "/api/v1/backups/a/complete", "POST"},
      {"HEAD", "/api/v1/backups/a/complete", "POST"},
      {"POST", "/api/v1/vm-contexts/a", "PUT, GET, HEAD, DELETE"},
      {"OPTIONS", "/health", "GET, HEAD"},
      {"get", "/health", "GET, HEAD"}};
  for (const auto& [method, target, allowed] : rows) {
    const auto answer = request(method, target);
    expect_problem(answer, 405, "method not allowed", "method_not_allowed");
    EXPECT_EQ(header(answer, "Allow"), allowed) << target;
  }
}

TEST_F(Routing, LiteralsWinOverVariables) {
  const auto pattern = [](const std::string& method, const std::string& path) {
    const auto* route = api::match(api::all_routes(), method, api::Target(path).segments).route;
    return route ? std::string(route->pattern) : "";
  };
  EXPECT_EQ(pattern("GET", "/api/v1/backups/stats"), "/api/v1/backups/stats");
  EXPECT_EQ(pattern("GET", "/api/v1/backups/chain"), "/api/v1/backups/chain");
  EXPECT_EQ(pattern("GET", "/api/v1/backups/changeid"), "/api/v1/backups/changeid");
  EXPECT_EQ(pattern("GET", "/api/v1/backups/x"), "/api/v1/backups/{backup_id}");
  EXPECT_EQ(pattern("GET", "/api/v1/backups/stats/chain"), "/api/v1/backups/{vm_name}/chain");
  EXPECT_EQ(pattern("GET", "/api/v1/vm-contexts/by-id/x"),
            "/api/v1/vm-contexts/by-id/{context_id}");
  EXPECT_EQ(pattern("GET", "/api/v1/vm-contexts/by-id/disks"),
            "/api/v1/vm-contexts/by-id/{context_id}");
  EXPECT_EQ(pattern("GET", "/api/v1/vm-contexts/x/disks"), "/api/v1/vm-contexts/{vm}/disks");
  EXPECT_EQ(pattern("POST", "/api/v1/repositories/test"), "/api/v1/repositories/test");
  EXPECT_EQ(pattern("POST", "/api/v1/repositories/x/test"), "/api/v1/repositories/{id}/test");
}

TEST_F(Routing, TheOldRestoreFamilyIsGone) {
  for (const char* target : {"/api/v1/restore", "/api/v1/restore/mount", "/api/v1/restore/a/b/c"}) {
    const Json problem =
        expect_problem(request("POST", target), 410, "restore endpoints are gone", "gone");
    const std::string hint = problem["hint"];
    EXPECT_NE(hint.find("GET /api/v1/points"), std::string::npos) << hint;
    EXPECT_NE(hint.find("varve restore"), std::string::npos) << hint;
  }
}

TEST_F(Routing, AProblemNamesThePathWithoutItsQuery) {
  EXPECT_EQ(Json::parse(get("/nowhere%20x?token=secret").body)["instance"], "/api/v1/nowhere%20x");
}

TEST_F(Routing, FailuresAreReportedForTheLogAndRefusalsAreNot) {
  std::vector<std::string> log;
  api::Settings settings = ApiTest::settings();
  settings.on_failure = [&](std::string_view text) { log.emplace_back(text); };
  const api::Api api(engine_, settings);
  EXPECT_CALL(engine_, backup)
      .WillOnce(Throw(std::runtime_error("disk I/O error")))
      .WillOnce(Throw(engine::refusals::backup_not_found("x")));
  api.handle({"GET", "/api/v1/backups/x?a=b", "", "", "", true});
  api.handle({"GET", "/api/v1/backups/x", "", "", "", true});
  EXPECT_EQ(
      log,
      (std::vector<std::string>{"GET /api/v1/backups/x: failed to get backup: disk I/O error"}));
}

TEST_F(Routing, HeadIsForWhateverGetIsFor) {
  for (const api::Route& route : api::all_routes()) {
    if (route.method != "GET") continue;
    const auto asked = [&](const char* method) {
      return api_.route_of({method, std::string(route.pattern), "", "", "", true});
    };
    EXPECT_EQ(asked("HEAD"), asked("GET")) << route.pattern;
  }
}

// A filter that is ignored answers another question than was asked.
TEST_F(Routing, AParameterThatLooksLikeAMisspeltOneIsRefused) {
  const std::tuple<const char*, const char*, const char*> rows[] = {
      {"/backups?vm=pg01", "vm", "vm_name"},
      {"/backups?limit=5&vmName=pg01", "vmName", "vm_name"},
      {"/backups?vm-name=pg01", "vm-name", "vm_name"},
      {"/backups?repository=1", "repository", "repository_id"},
      {"/backups?stauts=failed", "stauts", "status"},
      {"/backups?type=full", "type", "backup_type"},
      {"/backups?limits=5", "limits", "limit"},
      {"/backups?ofset=5", "ofset", "offset"},
      {"/points?disk=0", "disk", "disk_id"}};
  for (const auto& [target, given, meant] : rows) {
    const Json problem =
        expect_problem(get(target), 400, "unknown query parameter", "unknown_parameter",
                       std::string("unknown query parameter '") + given + "'");
    EXPECT_EQ(problem["hint"], std::string("Did you mean '") + meant +
                                   "'? GET /openapi.json describes the parameters.");
  }
}

TEST_F(Routing, AParameterThatNobodyKnowsIsIgnored) {
  EXPECT_CALL(engine_, list_backups).Times(6).WillRepeatedly(Return(engine::BackupList{}));
  for (const char* query :
       {"_=1759913694", "page=2", "pretty", "token=x", "x=y", "sort=created_at"}) {
    EXPECT_EQ(get(std::string("/backups?") + query).status, 200) << query;
  }
}

// What the existing clients ask is taken as it always was.
TEST_F(Routing, TheQueriesOfTheExistingClientAreNeverCorrected) {
  EXPECT_CALL(engine_, change_id).WillOnce(Return(engine::ChangeIdAnswer{}));
  EXPECT_CALL(engine_, change_id_by_path).WillOnce(Return(engine::ChangeIdAnswer{}));
  EXPECT_EQ(get("/backups/changeid?vm_name=a&disk=0&vm=b").status, 200);
  EXPECT_EQ(get("/replications/changeid?vm_path=/a&disk=disk-2000&path=x").status, 200);
}

TEST_F(Routing, WhatIsPolledHasATagAndIsNotSentTwice) {
  engine::BackupList none, one;
  one.backups = {running_backup()};
  EXPECT_CALL(engine_, list_backups)
      .WillOnce(Return(none))
      .WillOnce(Return(none))
      .WillOnce(Return(one));
  const auto ask = [&](const std::string& known) {
    api::Request request{"GET", "/api/v1/backups", "", "", "", true};
    request.if_none_match = known;
    return api_.handle(request);
  };
  const auto first = ask("");
  const std::string tag = header(first, "ETag");
  EXPECT_EQ(tag.size(), 34u) << tag;
  const auto same = ask("\"other\", W/" + tag);
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.body, "");
  EXPECT_EQ(header(same, "ETag"), tag);
  const auto changed = ask(tag);
  EXPECT_EQ(changed.status, 200);
  EXPECT_NE(header(changed, "ETag"), tag);
}

class Token : public ApiTest {
 protected:
  static api::Settings settings() {
    api::Settings settings = ApiTest::settings();
    settings.tokens = one_token("t0ken");
    return settings;
  }
  int status(const std::string& method, const std::string& target, bool loopback,
             const std::string& authorization = "") {
    return secured_.handle({method, target, authorization, "", "{}", loopback}).status;
  }
  NiceMock<MockEngine> quiet_;
  api::Api secured_{quiet_, settings()};
};

TEST_F(Token, ItsAbsenceItsFormAndItsValueAreToldApart) {
  const std::tuple<const char*, const char*, const char*> rows[] = {
      {"", "Missing authorization header", "missing_authorization_header"},
      {"t0ken", "Invalid authorization format", "invalid_authorization_format"},
      {"Basic t0ken", "Invalid authorization format", "invalid_authorization_format"},
      {"Bearer ", "Invalid authorization format", "invalid_authorization_format"},
      {"Bearer other", "Invalid or expired token", "invalid_or_expired_token"},
      {"Bearer t0kem", "Invalid or expired token", "invalid_or_expired_token"}};
  for (const auto& [authorization, error, code] : rows) {
    const auto answer = secured_.handle({"GET", "/api/v1/backups", authorization, "", "", true});
    expect_problem(answer, 401, error, code);
  }
  EXPECT_EQ(status("GET", "/api/v1/backups", false, "Bearer t0ken"), 200);
  EXPECT_EQ(status("GET", "/nowhere", true), 401);
}

TEST_F(Token, TheExistingClientNeedsNoneOnLoopbackAndOneElsewhere) {
  EXPECT_CALL(quiet_, complete).WillRepeatedly(Throw(engine::refusals::job_not_found("a", "")));
  const std::pair<const char*, const char*> open[] = {{"POST", "/api/v1/backups/a/complete"},
                                                      {"GET", "/api/v1/backups/changeid?vm_name=a"},
                                                      {"GET", "/api/v1/replications/changeid"},
                                                      {"POST", "/api/v1/telemetry/backup/a"},
                                                      {"GET", "/health"},
                                                      {"GET", "/api/v1/health"},
                                                      {"GET", "/livez"},
                                                      {"GET", "/readyz"}};
  for (const auto& [method, target] : open) {
    EXPECT_NE(status(method, target, true), 401) << target;
    EXPECT_EQ(status(method, target, false), 401) << target;
  }
  for (const auto& route : api::all_routes()) {
    const std::string key = std::string(route.method) + " " + std::string(route.pattern);
    const bool listed = std::any_of(std::begin(open), std::end(open), [&](const auto& entry) {
      const auto* found =
          api::match(api::all_routes(), entry.first, api::Target(entry.second).segments).route;
      return found == &route;
    });
    EXPECT_EQ(route.open_on_loopback, listed) << key;
  }
}

class Cors : public Routing {
 protected:
  api::Response ask(std::vector<std::string> origins, const std::string& method,
                    const std::string& origin) {
    api::Settings settings = ApiTest::settings();
    settings.cors_origins = std::move(origins);
    settings.tokens = one_token("t");
    return api::Api(engine_, settings).handle({method, "/livez", "", origin, "", true});
  }
};

TEST_F(Cors, IsOffByDefault) {
  EXPECT_EQ(header(ask({}, "GET", "http://gui"), "Access-Control-Allow-Origin"), "");
  EXPECT_EQ(ask({}, "OPTIONS", "http://gui").status, 401);
}

TEST_F(Cors, AStarAllowsEveryOriginAndItsPreflight) {
  const auto preflight = ask({"*"}, "OPTIONS", "http://gui");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(header(preflight, "Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(header(preflight, "Access-Control-Allow-Methods"), "GET, POST, PUT, DELETE, OPTIONS");
  EXPECT_EQ(header(preflight, "Access-Control-Allow-Headers"), "Content-Type, Authorization");
}

TEST_F(Cors, ANamedOriginIsEchoedAndAnotherIsNot) {
  const std::vector<std::string> origins = {"http://gui", "http://other"};
  EXPECT_EQ(header(ask(origins, "GET", "http://gui"), "Access-Control-Allow-Origin"), "http://gui");
  EXPECT_EQ(header(ask(origins, "GET", "http://gui"), "Vary"), "Origin");
  EXPECT_EQ(header(ask(origins, "GET", "http://evil"), "Access-Control-Allow-Origin"), "");
}

// Whatever arrives, the answer is JSON and an error is a whole problem document.
TEST(FuzzedRequest, IsAnsweredWithAWellFormedDocument) {
  NiceMock<MockEngine> engine;
  ON_CALL(engine, start_backup).WillByDefault(Throw(engine::refusals::vm_not_found("\xff\"\\")));
  ON_CALL(engine, complete).WillByDefault(Throw(engine::refusals::job_not_found("x", "\n")));
  ON_CALL(engine, backup).WillByDefault(Throw(std::runtime_error("cause \x80 with bytes")));
  const api::Api api(engine, {.now = [] { return sample_time(); }});
  std::mt19937 dice(33);
  const auto pick = [&](const auto& from) { return from[dice() % std::size(from)]; };
  const std::string methods[] = {"GET", "POST", "PUT", "DELETE", "PATCH", "\x01", ""};
  const std::string names[] = {
      "vm_name", "backup_type", "repository_id", "tags", "change_id",   "disk_id", "disks",
      "vm_path", "type",        "config",        "name", "credentials", "error",   "vcenter_host"};
  const std::string values[] = {
      "null", "1",     "-1",   "1e300",      "\"\"",     "\"\\u0000\"", "[]",
      "{}",   "true",  "[[]]", "{\"a\":{}}", "\"full\"", "\"\xff\"",    "18446744073709551615",
      "[{}]", "\"/a\""};
  const std::string pieces[] = {"%00", "%ff", "%zz",   "a",     "..",    "?", "&limit=",
                                "=",   "/",   "disks", "chain", "x%2Fy", "#", "+"};
  for (int i = 0; i < 20000; ++i) {
    const auto routes = api::all_routes();
    std::string target(routes[dice() % routes.size()].pattern);
    for (size_t n = dice() % 3; n > 0; --n)
      target.insert(dice() % (target.size() + 1), pick(pieces));
    std::string body = "{";
    for (size_t n = dice() % 5; n > 0; --n) {
      body += '"' + pick(names) + "\":" + pick(values) + (n > 1 ? "," : "");
    }
    if (dice() % 8 != 0) body += "}";
    const auto answer = api.handle({pick(methods), target, "", "", body, true});
    SCOPED_TRACE(target + " " + body);
    if (answer.status >= 400 && !target.starts_with("/readyz")) {
      expect_well_formed_problem(answer);
    } else if (answer.content_type == "application/json") {
      EXPECT_FALSE(Json::parse(answer.body, nullptr, false).is_discarded());
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// A33: neither the zone of the process nor its locale shows.
TEST_F(Routing, TimesAreUtcWhateverTheZone) {
  ::setenv("TZ", "Pacific/Auckland", 1);
  ::tzset();
  EXPECT_CALL(engine_, backup).WillOnce(Return(running_backup()));
  EXPECT_EQ(body_of(get("/backups/x"))["created_at"], "2025-10-08T08:54:54Z");
  ::unsetenv("TZ");
  ::tzset();
}

TEST(CodeOf, IsTheFixedPartInLowerCase) {
  EXPECT_EQ(api::code_of("Failed to list repositories: disk I/O error"),
            "failed_to_list_repositories");
  EXPECT_EQ(api::code_of("Invalid local repository config: x"), "invalid_local_repository_config");
  EXPECT_EQ(api::code_of("not found"), "not_found");
}

}  // namespace
}  // namespace api_tests
