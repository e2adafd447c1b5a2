// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "api_fixture.h"

/// What a request body may look like, whatever the endpoint.
namespace api_tests {
namespace {

using ::testing::NiceMock;

class Body : public ApiTest {
 protected:
  static constexpr size_t kBytes = 200'000;

  /// `open` over and over: "[[[[…" is 200 KB of arrays that never end.
  static std::string nested(const std::string& open, size_t times) {
    std::string text;
    for (size_t i = 0; i < times; ++i) text += open;
    return text;
  }
  static std::string closed(const std::string& open, char close, size_t times) {
    return nested(open, times) + "1" + std::string(times, close);
  }
  static std::vector<std::string> deep_values() {
    return {nested("[", kBytes), nested("{\"a\":", kBytes / 5), closed("[", ']', kBytes / 2),
            closed("{\"a\":", '}', kBytes / 6), closed("[{\"a\":[", ']', kBytes / 7)};
  }
  /// Of every route that reads a body: method and path, "x" in place of its variables.
  static std::vector<std::pair<std::string, std::string>> routes_with_body() {
    std::vector<std::pair<std::string, std::string>> routes;
    for (const api::Route& route : api::all_routes()) {
      if (route.body.empty()) continue;
      std::string path(route.pattern);
      for (size_t at; (at = path.find('{')) != path.npos;) {
        path.replace(at, path.find('}', at) - at + 1, "x");
      }
      routes.emplace_back(std::string(route.method), path);
    }
    return routes;
  }
  static std::string details_of(const api::Response& response) {
    expect_well_formed_problem(response);
    return Json::parse(response.body)["details"];
  }
  NiceMock<MockEngine> quiet_;
  api::Api quiet_api_{quiet_, settings()};
};

TEST_F(Body, NestedBeyondTheLimitIsRefusedByEveryRouteWhereverTheNestingIs) {
  ASSERT_GE(routes_with_body().size(), 7u);
  for (const auto& [method, path] : routes_with_body()) {
    for (const std::string& deep : deep_values()) {
      for (const std::string& body :
           {deep, "{\"unknown\":" + deep + "}",
            R"({"type":"local","config":{"path":"/p","mount_options":)" + deep + "}}"}) {
        SCOPED_TRACE(method + " " + path + " " + body.substr(0, 60));
        const auto answer = quiet_api_.handle({method, path, "", "", body, true});
        EXPECT_EQ(answer.status, 400);
        EXPECT_EQ(details_of(answer), "arrays and objects are nested more than 32 levels deep");
      }
    }
  }
}

TEST_F(Body, NestedUpToTheLimitIsTaken) {
  EXPECT_CALL(engine_, cancel).Times(2);
  EXPECT_EQ(post("/backups/x/cancel", "{\"a\":" + closed("[", ']', 31) + "}").status, 200);
  EXPECT_EQ(post("/backups/x/cancel", "{\"a\":" + closed("[", ']', 32) + "}").status, 400);
  const std::string flat = nested("[],", 50'000);
  EXPECT_EQ(post("/backups/x/cancel", "{\"a\":[" + flat + "1]}").status, 200);
}

TEST_F(Body, BracketsInTextNestNothing) {
  std::string reason;
  EXPECT_CALL(engine_, cancel).WillOnce([&](const std::string&, const std::string& text) {
    reason = text;
  });
  const std::string brackets = std::string(100, '[') + "\\\"" + std::string(100, '{') + "\\\\";
  EXPECT_EQ(post("/backups/x/cancel", "{\"reason\":\"" + brackets + "\"}").status, 200);
  EXPECT_EQ(reason.size(), 202u);
}

TEST_F(Body, AnOptionalMemberOfTheWrongTypeIsRefusedWithItsNameAndType) {
  EXPECT_CALL(engine_, test_repository(::testing::An<const engine::NewRepository&>())).Times(0);
  const std::pair<const char*, const char*> rows[] = {
      {R"("mount_options":7)", "'config.mount_options' must be a string or an array of strings"},
      {R"("mount_options":{"a":1})",
       "'config.mount_options' must be a string or an array of strings"},
      {R"("mount_options":["ro",7])",
       "'config.mount_options' must be a string or an array of strings"},
      {R"("auto_mount":"yes")", "'config.auto_mount' must be a boolean"},
      {R"("domain":[])", "'config.domain' must be a string"}};
  for (const auto& [member, fault] : rows) {
    const std::string config = std::string(R"({"path":"/p",)") + member + "}";
    expect_problem(post("/repositories/test", R"({"type":"local","config":)" + config + "}"), 400,
                   std::string("Invalid request body: member ") + fault, "invalid_body");
  }
}

TEST_F(Body, MountOptionsAreOneTextOrSeveral) {
  std::vector<std::string> kept;
  EXPECT_CALL(engine_, test_repository(::testing::An<const engine::NewRepository&>()))
      .Times(2)
      .WillRepeatedly([&](const engine::NewRepository& request) {
        kept.push_back(request.config_json);
        return engine::RepositoryTest{};
      });
  for (const char* options : {R"("ro,noatime")", R"(["ro","noatime"])"}) {
    post("/repositories/test", std::string(R"({"type":"local","config":{"path":"/p",)") +
                                   R"("mount_options":)" + options + "}}");
  }
  EXPECT_EQ(kept, (std::vector<std::string>{R"({"path":"/p","mount_options":"ro,noatime"})",
                                            R"({"path":"/p","mount_options":["ro","noatime"]})"}));
}

}  // namespace
}  // namespace api_tests
