// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "api/api.h"
#include "mock_engine.h"
#include "samples.h"

namespace api_tests {

using Json = nlohmann::json;
using ::testing::_;
using ::testing::Return;
using ::testing::Throw;

/// A book of one token, which has every scope.
std::shared_ptr<const api::TokenBook> one_token(std::string token);

/// An API on a mock engine, at 2025-10-08T08:54:54Z, asked from loopback without a token.
class ApiTest : public ::testing::Test {
 protected:
  static api::Settings settings() {
    return {.version = "1.2.3", .pid = 4242, .now = [] { return sample_time(); }};
  }

  api::Response request(const std::string& method, const std::string& target,
                        const std::string& body = "") {
    return api_.handle({method, target, "", "", body, true});
  }
  api::Response get(const std::string& target) { return request("GET", "/api/v1" + target); }
  api::Response post(const std::string& target, const std::string& body = "") {
    return request("POST", "/api/v1" + target, body);
  }

  /// The body of an answer with that status.
  static Json body_of(const api::Response& response, int status = 200) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(response.content_type, "application/json");
    return Json::parse(response.body);
  }

  /// A well-formed problem document with these texts; returns it.
  static Json expect_problem(const api::Response& response, int status, const std::string& error,
                             const std::string& code, const std::string& details = "");

  MockEngine engine_;
  api::Api api_{engine_, settings()};
};

/// The members that every error document has (docs/http-api.md, "Errors"), whatever it says.
void expect_well_formed_problem(const api::Response& response);

}  // namespace api_tests
