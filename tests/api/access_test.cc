// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "api/audit.h"
#include "api_fixture.h"

/// Tokens with scopes, and the audit log. The file of tokens: tests/app/token_file_test.cc.
namespace api_tests {
namespace {

class Book : public api::TokenBook {
 public:
  bool is_in_use() const override { return in_use; }
  std::optional<api::TokenHolder> find(std::string_view token) const override {
    const auto found = holders.find(std::string(token));
    if (found == holders.end()) return std::nullopt;
    return found->second;
  }
  bool in_use = true;
  std::map<std::string, api::TokenHolder> holders = {
      {"r", {"dashboard", {api::Scope::read}}},
      {"b", {"nightly", {api::Scope::backup}}},
      {"s", {"lab", {api::Scope::restore}}},
      {"a", {"root", {api::Scope::admin}}},
      {"bs", {"both", {api::Scope::backup, api::Scope::restore}}}};
};

class Access : public ApiTest {
 protected:
  Access() {
    settings_ = settings();
    settings_.tokens = book_;
    settings_.audit = [this](std::string_view line) { lines_.push_back(Json::parse(line)); };
    ON_CALL(quiet_, start_backup).WillByDefault(Return(running_backup()));
  }
  api::Response ask(const std::string& method, const std::string& target, const std::string& token,
                    const std::string& body = "", bool loopback = false) {
    api::Request request{
        method, "/api/v1" + target, token.empty() ? "" : "Bearer " + token, "", body, loopback};
    request.peer_address = loopback ? "127.0.0.1" : "192.0.2.7";
    return api::Api(quiet_, settings_).handle(request);
  }

  std::shared_ptr<Book> book_ = std::make_shared<Book>();
  api::Settings settings_;
  std::vector<Json> lines_;
  ::testing::NiceMock<MockEngine> quiet_;
};

constexpr const char* kStartBody = R"({"vm_name":"a","repository_id":"1","backup_type":"full"})";
constexpr const char* kRestoreBody = R"({"backup_id":"a","mode":"read-only"})";

TEST_F(Access, ATokenMayDoWhatItsScopeIncludesAndNothingElse) {
  const std::tuple<const char*, const char*, const char*, const char*> rows[] = {
      {"GET", "/backups", "", "r b s a bs"},         {"HEAD", "/backups", "", "r b s a bs"},
      {"POST", "/backups", kStartBody, "b a bs"},    {"POST", "/backups/x/cancel", "", "b a bs"},
      {"POST", "/restores", kRestoreBody, "s a bs"}, {"DELETE", "/backups/x", "", "a"},
      {"DELETE", "/repositories/x", "", "a"},        {"POST", "/verifications", "", "a"}};
  for (const auto& [method, target, body, allowed] : rows) {
    for (const auto& [token, holder] : book_->holders) {
      const bool may =
          (" " + std::string(allowed) + " ").find(" " + token + " ") != std::string::npos;
      const auto answer = ask(method, target, token, body);
      EXPECT_EQ(answer.status == 403, !may) << method << " " << target << " by " << holder.name;
      EXPECT_NE(answer.status, 401);
    }
  }
}

TEST_F(Access, ARefusalNamesTheScopeThatIsMissing) {
  const Json problem =
      expect_problem(ask("DELETE", "/backups/x", "b"), 403, "the token's scope does not allow this",
                     "scope_missing", "the token 'nightly' has not the scope 'admin'");
  EXPECT_EQ(problem["hint"], "Use a token of `varve token add NAME --scope admin`.");
}

TEST_F(Access, AnUnknownTokenIsNobodys) {
  expect_problem(ask("GET", "/backups", "x"), 401, "Invalid or expired token",
                 "invalid_or_expired_token");
  book_->holders.erase("r");  // revoked
  EXPECT_EQ(ask("GET", "/backups", "r").status, 401);
}

TEST_F(Access, WithoutTokensNoneIsAskedFor) {
  book_->in_use = false;
  EXPECT_EQ(ask("GET", "/backups", "").status, 200);
}

TEST_F(Access, TheExistingClientNeedsNoneOnLoopbackWhateverItSends) {
  for (const char* token : {"", "x", "r"}) {
    EXPECT_EQ(ask("GET", "/backups/changeid?vm_name=a", token, "", true).status, 200) << token;
  }
  EXPECT_EQ(ask("GET", "/backups/changeid?vm_name=a", "r").status, 403);
  EXPECT_EQ(ask("GET", "/backups/changeid?vm_name=a", "b").status, 200);
}

// A browser on the hub sends what any page asks it to; what goes without a token must not go so.
TEST_F(Access, APageOfAnotherOriginGetsNowhere) {
  const auto from_page = [&](const std::string& target) {
    api::Request request{"POST", "/api/v1" + target, "", "http://evil.example", "{}", true};
    request.host = "127.0.0.1:8082";
    request.local_address = "127.0.0.1";
    return api::Api(quiet_, settings_).handle(request);
  };
  expect_problem(from_page("/backups/x/complete"), 403, "origin is not allowed",
                 "origin_not_allowed");
  EXPECT_EQ(from_page("/backups/x/cancel").status, 401);
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_EQ(lines_[0]["code"], "origin_not_allowed");
}

TEST_F(Access, WhatChangesSomethingIsWrittenDownWithWhoAndWhat) {
  ask("POST", "/backups?secret=1", "b", kStartBody);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0], Json::parse(R"({"time":"2025-10-08T08:54:54Z","who":"nightly",
    "address":"192.0.2.7","method":"POST","path":"/api/v1/backups","operation":"startBackup",
    "object":"backup-pgtest1-1759913694","status":200})"));
}

TEST_F(Access, RefusedChangesAreWrittenDownToo) {
  ask("DELETE", "/backups/x", "b");
  ask("DELETE", "/backups/x", "wrong");
  ask("POST", "/nowhere", "");
  ASSERT_EQ(lines_.size(), 3u);
  EXPECT_EQ(lines_[0]["who"], "nightly");
  EXPECT_EQ(lines_[0]["object"], "x");
  EXPECT_EQ(lines_[0]["status"], 403);
  EXPECT_EQ(lines_[0]["code"], "scope_missing");
  EXPECT_EQ(lines_[1]["who"], "anonymous");
  EXPECT_EQ(lines_[1]["code"], "invalid_or_expired_token");
  EXPECT_EQ(lines_[2]["status"], 401);
  EXPECT_EQ(lines_[2].dump().find("wrong"), std::string::npos);
}

TEST_F(Access, StrangersCannotFillTheDiskWithRefusals) {
  engine::Time now{std::chrono::seconds(1'800'000'000)};
  settings_.now = [&now] { return now; };
  const api::Api api(quiet_, settings_);
  const auto refused = [&](const char* token) {
    api.handle({"POST", "/api/v1/backups", token, "", "{}", false});
  };
  for (int i = 0; i < 150; ++i) refused("Bearer wrong");
  EXPECT_EQ(lines_.size(), 100u);
  refused("Bearer r");  // somebody with a name: never left out
  ASSERT_EQ(lines_.size(), 101u);
  EXPECT_EQ(lines_.back()["who"], "dashboard");
  EXPECT_FALSE(lines_.back().contains("dropped"));
  now += std::chrono::seconds(2);
  for (int i = 0; i < 10; ++i) refused("");
  ASSERT_EQ(lines_.size(), 103u);
  EXPECT_EQ(lines_[101]["dropped"], 50);
  EXPECT_FALSE(lines_[102].contains("dropped"));
  now -= std::chrono::hours(1);  // a clock that is set back
  refused("");
  now += std::chrono::seconds(1);
  refused("");
  ASSERT_EQ(lines_.size(), 104u);
  EXPECT_EQ(lines_[103]["dropped"], 9);
}

TEST_F(Access, LookingOnAndReportsOfProgressAreNotWrittenDown) {
  ask("GET", "/backups", "r");
  ask("HEAD", "/backups", "");
  ask("POST", "/telemetry/backup/x", "b", "{}");
  EXPECT_EQ(lines_.size(), 0u);
  ask("POST", "/telemetry/backup/x", "r", "{}");
  EXPECT_EQ(lines_.size(), 1u);  // its refusal
}

TEST_F(Access, WithoutATokenThePeerIsNamedAsFarAsItIsKnown) {
  book_->in_use = false;
  ask("POST", "/backups/x/cancel", "", "", true);
  ask("POST", "/backups/x/cancel", "");
  api::Request request{"POST", "/api/v1/backups/x/cancel", "", "", "", true};
  request.peer_uid = 1000;
  api::Api(quiet_, settings_).handle(request);
  request.peer_uid.reset();
  request.peer_certificate = "client.example";
  api::Api(quiet_, settings_).handle(request);
  ASSERT_EQ(lines_.size(), 4u);
  EXPECT_EQ(lines_[0]["who"], "loopback");
  EXPECT_EQ(lines_[1]["who"], "anonymous");
  EXPECT_EQ(lines_[2]["who"], "uid 1000");
  EXPECT_FALSE(lines_[2].contains("address"));
  EXPECT_EQ(lines_[3]["who"], "certificate client.example");
}

}  // namespace
}  // namespace api_tests
