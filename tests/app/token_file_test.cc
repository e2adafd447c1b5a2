// SPDX-License-Identifier: Apache-2.0
#include "app/token_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "app/audit_file.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "tests/app/parse.h"

// Tokens at rest, and the audit log's file.

namespace app {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  Files() {
    std::string pattern = fs::temp_directory_path() / "varve-tokens-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~Files() override { fs::remove_all(directory_); }
  std::string at(const std::string& name) const { return directory_ + "/" + name; }
  static std::string text_of_file(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  void write(const std::string& name, const std::string& text, fs::perms mode) {
    std::ofstream(at(name)) << text;
    fs::permissions(at(name), mode);
  }

  std::string directory_;
  const engine::Time now_{std::chrono::seconds(1759913694)};
};

constexpr auto kOwnerOnly = fs::perms::owner_read | fs::perms::owner_write;

class Tokens : public Files {
 protected:
  std::string file_ = at("tokens");
};

TEST_F(Tokens, AreKeptAsTheirHashOnlyForTheirOwnerOnly) {
  const auto token = add_token(file_, "nightly", {api::Scope::backup, api::Scope::restore}, now_);
  ASSERT_TRUE(token);
  EXPECT_EQ(token->size(), 6u + 64u);
  EXPECT_TRUE(token->starts_with("varve_"));
  EXPECT_EQ(text_of_file(file_).find(token->substr(6)), std::string::npos);
  struct stat status {};
  ASSERT_EQ(::stat(file_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  const auto known = read_tokens(file_);
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0].name, "nightly");
  EXPECT_EQ(known[0].created_at, now_);
  const auto holder = TokenFile(file_).find(*token);
  ASSERT_TRUE(holder);
  EXPECT_EQ(holder->scopes, (std::vector{api::Scope::backup, api::Scope::restore}));
  EXPECT_FALSE(TokenFile(file_).find(known[0].sha256));  // the hash is no token
}

TEST_F(Tokens, TheOldTokenHasEveryScopeBesideTheOthersAndCanBeChanged) {
  const auto nightly = add_token(file_, "nightly", {api::Scope::backup}, now_);
  TokenFile book(file_);
  book.set_api_token("alpha");
  EXPECT_EQ(book.find("alpha")->name, "api-token");
  EXPECT_TRUE(api::includes(book.find("alpha")->scopes, api::Scope::admin));
  EXPECT_EQ(book.find(*nightly)->name, "nightly");
  book.set_api_token("beta");
  EXPECT_FALSE(book.find("alpha"));
  EXPECT_TRUE(book.find("beta"));
}

TEST_F(Tokens, WithoutTheOldTokenTheApiDoesNotOpen) {
  TokenFile book(file_);
  EXPECT_FALSE(book.is_in_use());
  book.set_api_token("alpha");
  EXPECT_TRUE(book.is_in_use());
  book.set_api_token("");
  EXPECT_TRUE(book.is_in_use());
  EXPECT_FALSE(book.find(""));
}

TEST_F(Tokens, ANameIsTakenOnceAndIsAWord) {
  EXPECT_TRUE(add_token(file_, "a", {api::Scope::read}, now_));
  EXPECT_FALSE(add_token(file_, "a", {api::Scope::admin}, now_));
  EXPECT_EQ(read_tokens(file_).size(), 1u);
  for (const char* name : {"", "a b", "#a", "a\n", "ä", "a/b"}) {
    EXPECT_THROW(add_token(file_, name, {api::Scope::read}, now_), UsageError) << name;
  }
}

TEST_F(Tokens, OneThatIsRevokedIsRefusedAtOnceByWhoeverReadTheFileBefore) {
  const auto first = add_token(file_, "a", {api::Scope::read}, now_);
  const TokenFile book(file_);
  EXPECT_TRUE(book.find(*first));
  const auto second = add_token(file_, "b", {api::Scope::read}, now_);
  EXPECT_TRUE(book.find(*second));
  EXPECT_TRUE(revoke_token(file_, "a"));
  EXPECT_FALSE(book.find(*first));
  EXPECT_TRUE(book.find(*second));
  EXPECT_FALSE(revoke_token(file_, "a"));
  EXPECT_TRUE(revoke_token(file_, "b"));
  EXPECT_TRUE(book.is_in_use());  // the last one gone opens nothing
  EXPECT_TRUE(TokenFile(file_).is_in_use());
}

TEST_F(Tokens, AFileThatGoesOrCannotBeUsedLetsNobodyIn) {
  const TokenFile none(file_);
  EXPECT_FALSE(none.is_in_use());
  const auto token = add_token(file_, "a", {api::Scope::read}, now_);
  EXPECT_TRUE(none.is_in_use());
  EXPECT_TRUE(none.find(*token));
  fs::permissions(file_, kOwnerOnly | fs::perms::others_read);
  EXPECT_FALSE(none.find(*token));
  EXPECT_THROW(TokenFile{file_}, UsageError);
  fs::permissions(file_, kOwnerOnly);
  EXPECT_TRUE(none.find(*token));
  fs::remove(file_);
  EXPECT_FALSE(none.find(*token));
  EXPECT_TRUE(none.is_in_use());
}

TEST_F(Tokens, AFileThatCouldNotBeReadOnceIsReadAgainThoughItHasNotChanged) {
  const auto token = add_token(file_, "a", {api::Scope::read}, now_);
  const TokenFile book(file_);
  const auto other = add_token(file_, "b", {api::Scope::read}, now_);  // so that it is read again
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit none{0, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const bool is_let_in = book.find(*token).has_value();
  const bool is_in_use = book.is_in_use();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_FALSE(is_let_in);
  EXPECT_TRUE(is_in_use);
  EXPECT_TRUE(book.find(*token));
  EXPECT_TRUE(book.find(*other));
}

TEST_F(Tokens, AWrongLineIsNamed) {
  const std::string good = "a read " + std::string(64, '0') + " 2025-10-08T08:54:54Z\n";
  EXPECT_EQ(parse_tokens("f", "# note\n\n" + good).size(), 1u);
  const std::vector<std::string> wrong = {"a\n",
                                          "a read,write " + good.substr(7),
                                          "a read 00 2025-10-08T08:54:54Z\n",
                                          "a  " + good.substr(7),
                                          good.substr(0, 72) + "today\n",
                                          "a read " + std::string(64, 'G') + good.substr(71)};
  for (const std::string& bad : wrong) {
    try {
      parse_tokens("f", "# note\n" + bad);
      ADD_FAILURE() << bad;
    } catch (const UsageError& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("f:2: ")) << error.what();
    }
  }
  EXPECT_THROW(parse_tokens("f", good + good), UsageError);
}

TEST_F(Tokens, ManyWhoAddAtOnceLoseNone) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back(
        [&, i] { add_token(file_, "t" + std::to_string(i), {api::Scope::read}, now_); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(read_tokens(file_).size(), 8u);
}

TEST_F(Tokens, TheCommandTakesAVerbANameAndScopes) {
  const auto add = parse<TokenOptions>(
      {"token", "add", "ci", "--scope", "backup", "--scope", "restore", "--file", "/t"});
  EXPECT_EQ(add.verb, TokenOptions::Verb::add);
  EXPECT_EQ(add.name, "ci");
  EXPECT_EQ(add.scopes, (std::vector{api::Scope::backup, api::Scope::restore}));
  EXPECT_EQ(add.file, "/t");
  EXPECT_TRUE(parse<TokenOptions>({"token", "list", "--json"}).json);
  EXPECT_EQ(parse<TokenOptions>({"token", "revoke", "ci"}).verb, TokenOptions::Verb::revoke);
  EXPECT_THROW(parse<TokenOptions>({"token", "add", "ci"}), UsageError);
  EXPECT_THROW(parse<TokenOptions>({"token", "add", "ci", "--scope", "write"}), UsageError);
  EXPECT_THROW(parse<TokenOptions>({"token"}), UsageError);
}

TEST_F(Files, TheServerFindsTokensAndAuditLogBesideItsCatalogue) {
  const auto usual = parse<ServeOptions>({"serve", "--catalogue", "/srv/varve/catalogue.db"});
  EXPECT_EQ(usual.tokens, "/srv/varve/tokens");
  EXPECT_EQ(usual.audit_log, "/srv/varve/audit.jsonl");
  const auto said = parse<ServeOptions>({"serve", "--tokens", "/t", "--audit-log", ""});
  EXPECT_EQ(said.tokens, "/t");
  EXPECT_EQ(said.audit_log, "");
}

TEST_F(Files, ATokenComesFromAFileThatOnlyItsOwnerReads) {
  write("token", "s3cret\n", kOwnerOnly);
  const std::string path = at("token");
  EXPECT_EQ(parse<ServeOptions>({"serve", "--api-token-file", path.c_str()}).api_token, "s3cret");
  write("token", "two words", kOwnerOnly);
  EXPECT_THROW(parse<ServeOptions>({"serve", "--api-token-file", path.c_str()}), UsageError);
  write("token", "s3cret\n", kOwnerOnly | fs::perms::group_read);
  EXPECT_THROW(parse<ServeOptions>({"serve", "--api-token-file", path.c_str()}), UsageError);
}

TEST_F(Files, AClientTakesItsTokenFromAFileThatOnlyItsOwnerReads) {
  const std::string path = at("token");
  const auto token = [&] {
    return parse<StatusOptions>({"status", "--token-file", path.c_str()}).token;
  };
  write("token", "s3cret\r\nanother line\n", kOwnerOnly);
  EXPECT_EQ(token(), "s3cret");
  ::setenv("VARVE_TOKEN_FILE", path.c_str(), 1);
  EXPECT_EQ(parse<StatusOptions>({"status"}).token, "s3cret");
  fs::permissions(path, kOwnerOnly | fs::perms::others_read);
  EXPECT_THROW(parse<StatusOptions>({"status"}), UsageError);
  ::unsetenv("VARVE_TOKEN_FILE");
  EXPECT_THROW(token(), UsageError);
  write("token", "\n", kOwnerOnly);
  EXPECT_THROW(token(), UsageError) << "it holds no token";
}

TEST_F(Files, TheAuditLogGoesOnWhereItsNameIs) {
  AuditFile log(at("audit"));
  log.write("one");
  fs::rename(at("audit"), at("audit.1"));  // as logrotate does
  log.write("two");
  EXPECT_EQ(text_of_file(at("audit.1")), "one\n");
  EXPECT_EQ(text_of_file(at("audit")), "two\n");
  fs::resize_file(at("audit"), 0);  // with copytruncate
  log.write("three");
  EXPECT_EQ(text_of_file(at("audit")), "three\n");
}

TEST_F(Files, AnAuditLogThatCannotBeWrittenStopsNothing) {
  AuditFile log(at("nowhere/audit"));
  log.write("lost");
  fs::create_directory(at("nowhere"));
  log.write("kept");
  EXPECT_EQ(text_of_file(at("nowhere/audit")), "kept\n");
}

}  // namespace
}  // namespace app
