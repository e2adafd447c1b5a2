// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

#include <algorithm>

namespace api_tests {
namespace {

class OneToken : public api::TokenBook {
 public:
  explicit OneToken(std::string token) : token_(std::move(token)) {}
  bool is_in_use() const override { return true; }
  std::optional<api::TokenHolder> find(std::string_view token) const override {
    if (token != token_) return std::nullopt;
    return api::TokenHolder{"the one", {api::Scope::admin}};
  }

 private:
  const std::string token_;
};

}  // namespace

std::shared_ptr<const api::TokenBook> one_token(std::string token) {
  return std::make_shared<OneToken>(std::move(token));
}

void expect_well_formed_problem(const api::Response& response) {
  EXPECT_EQ(response.content_type, "application/problem+json");
  const Json problem = Json::parse(response.body, nullptr, false);
  ASSERT_TRUE(problem.is_object()) << response.body;
  EXPECT_EQ(problem.value("status", 0), response.status);
  for (const char* name :
       {"type", "title", "detail", "instance", "code", "hint", "error", "details", "timestamp"}) {
    ASSERT_TRUE(problem.contains(name) && problem[name].is_string()) << name << response.body;
  }
  EXPECT_EQ(problem["title"], problem["error"]);
  EXPECT_EQ(problem["detail"], problem["details"]);
  EXPECT_NE(problem["error"], "");
  EXPECT_EQ(problem["timestamp"], "2025-10-08T08:54:54Z");
  std::string code = problem["code"];
  EXPECT_NE(code, "");
  EXPECT_EQ(code.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), code.npos) << code;
  std::replace(code.begin(), code.end(), '_', '-');
  EXPECT_EQ(problem["type"], "urn:varve:error:" + code);
}

Json ApiTest::expect_problem(const api::Response& response, int status, const std::string& error,
                             const std::string& code, const std::string& details) {
  expect_well_formed_problem(response);
  const Json problem = Json::parse(response.body);
  EXPECT_EQ(response.status, status) << response.body;
  EXPECT_EQ(problem["error"], error);
  EXPECT_EQ(problem["code"], code);
  if (!details.empty()) {
    EXPECT_EQ(problem["details"], details);
  }
  return problem;
}

}  // namespace api_tests
