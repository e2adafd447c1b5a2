// SPDX-License-Identifier: Apache-2.0
#include "app/http_access.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "app/token_file.h"
#include "tests/app/parse.h"

// What HTTP needs before it lets somebody in.

namespace app {
namespace {

using api::HttpTlsMode;

class HttpAccess : public ::testing::Test {
 protected:
  HttpAccess() {
    std::string pattern = std::filesystem::temp_directory_path() / "varve-http-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~HttpAccess() override { std::filesystem::remove_all(directory_); }

  ServeOptions options(std::vector<const char*> more = {}) {
    tokens_ = directory_ + "/tokens";
    std::vector<const char*> words = {"serve", "--tokens", tokens_.c_str()};
    words.insert(words.end(), more.begin(), more.end());
    return parse<ServeOptions>(words);
  }
  static std::string refusal(const ServeOptions& options, bool is_local = false) {
    try {
      check_http_access(options, {{"--http x", is_local}});
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  }

  std::string directory_, tokens_;
};

TEST_F(HttpAccess, LoopbackNeedsNothing) { EXPECT_EQ(refusal(options(), true), ""); }

TEST_F(HttpAccess, BeyondLoopbackATokenAndTlsAreNeededUnlessTheContraryIsSaid) {
  EXPECT_NE(refusal(options()).find("--allow-no-token"), std::string::npos);
  EXPECT_NE(refusal(options({"--allow-plain-http"})).find("--allow-no-token"), std::string::npos);
  EXPECT_NE(refusal(options({"--allow-no-token"})).find("--allow-plain-http"), std::string::npos);
  EXPECT_NE(refusal(options({"--api-token", "t"})).find("--allow-plain-http"), std::string::npos);
  EXPECT_EQ(refusal(options({"--allow-no-token", "--allow-plain-http"})), "");
  EXPECT_EQ(refusal(options({"--api-token", "t", "--tls-certificates", "/tls"})), "");
  EXPECT_NE(
      refusal(options({"--api-token", "t", "--tls-certificates", "/tls", "--http-tls", "off"})),
      "");
}

TEST_F(HttpAccess, AFileOfTokensIsAsGoodAsAToken) {
  const ServeOptions allowed = options({"--allow-plain-http"});
  EXPECT_NE(refusal(allowed), "");
  add_token(tokens_, "a", {api::Scope::read}, engine::Time{});
  EXPECT_EQ(refusal(allowed), "");
}

TEST_F(HttpAccess, TlsIsOnWithCertificatesAndCannotBeWithoutThem) {
  EXPECT_EQ(load_http_tls(options()).mode, HttpTlsMode::off);
  EXPECT_EQ(load_http_tls(options({"--tls-psk", "/keys"})).mode, HttpTlsMode::off);
  EXPECT_NE(refusal(options({"--http-tls", "require"}), true), "");
  EXPECT_THROW(load_http_tls(options({"--tls-certificates", "/nowhere"})), UsageError);
  EXPECT_EQ(load_http_tls(options({"--tls-certificates", "/nowhere", "--http-tls", "off"})).mode,
            HttpTlsMode::off);
  EXPECT_THROW(options({"--http-tls", "yes"}), UsageError);
}

}  // namespace
}  // namespace app
