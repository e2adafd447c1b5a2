// SPDX-License-Identifier: Apache-2.0
#include "api/site_guard.h"

#include "http_fixture.h"

/// Web pages: what a browser sends for them is told by Host, Origin and Content-Type.
namespace api_tests {
namespace {

constexpr const char* kStart = "/api/v1/backups/a/cancel";

class Site : public ApiTest {
 protected:
  /// A POST of `{}` over TCP to 127.0.0.1.
  static api::Request page(const std::string& host, const std::string& origin = "",
                           const std::string& content_type = "application/json") {
    return {"POST", kStart, "", origin, "{}", true, host, content_type, "127.0.0.1"};
  }
  int status(const api::Request& request, const api::Settings& of = settings()) {
    return api::Api(quiet_, of).handle(request).status;
  }
  ::testing::NiceMock<MockEngine> quiet_;
};

TEST_F(Site, AHostThatIsNotLoopbackIsRefusedWithTheOptionThatAllowsIt) {
  const Json problem = expect_problem(
      api::Api(quiet_, settings()).handle(page("evil.example:8082")), 403, "host is not allowed",
      "host_not_allowed",
      "'evil.example:8082' is neither loopback nor the address that was connected to");
  EXPECT_EQ(problem["hint"],
            "Ask 127.0.0.1 or localhost, or start varve with --http-name evil.example.");
  for (const char* host : {"localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "x",
                           "[2001:db8::1]:8082", "127.0.0.1@evil.example", "128.0.0.1"}) {
    EXPECT_EQ(status(page(host)), 403) << host;
  }
}

TEST_F(Site, LoopbackIsAskedByNameAndByAddress) {
  for (const char* host : {"localhost", "localhost:8082", "LOCALHOST.:1", "hub.localhost:8082",
                           "127.0.0.1:8082", "127.1.2.3", "[::1]:8082", "[0:0:0:0:0:0:0:1]", ""}) {
    EXPECT_EQ(status(page(host)), 200) << host;
  }
}

TEST_F(Site, TheAddressThatWasConnectedToAndConfiguredNamesAreAllowed) {
  api::Request request = page("192.0.2.1:8082");
  request.local_address = "192.0.2.1";
  EXPECT_EQ(status(request), 200);
  request = page("[2001:DB8:0::1]:8082");
  request.local_address = "2001:db8::1";
  EXPECT_EQ(status(request), 200);
  api::Settings named = settings();
  named.host_names = {"hub", "[::2]:80", "backup.example:8082"};
  for (const char* host : {"hub", "HUB:9", "backup.example", "[::2]:8082"}) {
    EXPECT_EQ(status(page(host), named), 200) << host;
  }
  EXPECT_EQ(status(page("hub.example"), named), 403);
}

TEST_F(Site, AUnixSocketIsOutOfReachOfPagesWhateverTheHost) {
  api::Request request = page("varve");
  request.local_address.clear();
  EXPECT_EQ(status(request), 200);
}

TEST_F(Site, APageOfAnotherOriginIsRefusedAlsoWhenItOnlyReads) {
  const Json problem = expect_problem(
      api::Api(quiet_, settings()).handle(page("127.0.0.1:8082", "http://evil.example")), 403,
      "origin is not allowed", "origin_not_allowed",
      "a page of 'http://evil.example' may not call '127.0.0.1:8082'");
  EXPECT_EQ(problem["hint"],
            "To allow its pages, start varve with --cors-origin http://evil.example.");
  for (const char* origin : {"null", "http://127.0.0.1:3000", "http://127.0.0.1", "file://",
                             "http://localhost:8082", "ftp://127.0.0.1:8082", "127.0.0.1:8082"}) {
    EXPECT_EQ(status(page("127.0.0.1:8082", origin)), 403) << origin;
  }
  api::Request read = page("127.0.0.1:8082", "http://evil.example");
  read.method = "GET", read.target = "/livez", read.body.clear();
  EXPECT_EQ(status(read), 403);
}

TEST_F(Site, APageOfVarvesOwnOriginAndOfConfiguredOnesMayCall) {
  EXPECT_EQ(status(page("localhost:8082", "http://localhost:8082")), 200);
  EXPECT_EQ(status(page("localhost:8082", "https://LOCALHOST:8082")), 200);
  api::Settings gui = settings();
  gui.cors_origins = {"http://gui:3000"};
  EXPECT_EQ(status(page("localhost:8082", "http://gui:3000"), gui), 200);
  EXPECT_EQ(status(page("localhost:8082", "http://gui:3001"), gui), 403);
  gui.cors_origins = {"*"};
  EXPECT_EQ(status(page("localhost:8082", "http://anywhere"), gui), 200);
  EXPECT_EQ(status(page("rebound.example", "http://rebound.example"), gui), 403);
}

TEST_F(Site, ABodyThatSaysItIsNotJsonIsRefused) {
  for (const char* type :
       {"text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x",
        "application/jsonp", "json", "text/json"}) {
    const Json problem =
        expect_problem(api::Api(quiet_, settings()).handle(page("localhost", "", type)), 415,
                       "content type must be application/json", "unsupported_content_type",
                       std::string("the body is sent as '") + type + "'");
    EXPECT_NE(problem["hint"].get<std::string>().find("Content-Type: application/json"),
              std::string::npos);
  }
  for (const char* type : {"application/json", "Application/JSON ; charset=utf-8", "",
                           "application/merge-patch+json"}) {
    EXPECT_EQ(status(page("localhost", "", type)), 200) << type;
  }
  api::Request empty = page("localhost", "", "application/x-www-form-urlencoded");
  empty.body.clear();
  EXPECT_EQ(status(empty), 200);
}

TEST_F(Site, AFormIsTakenFromACommandLineAndFromNoPage) {
  const char* const form = "application/x-www-form-urlencoded";
  EXPECT_EQ(status(page("localhost:8082", "", form)), 200) << "curl -d";
  EXPECT_EQ(status(page("localhost:8082", "http://localhost:8082", form)), 415);
  EXPECT_EQ(status(page("localhost:8082", "http://evil.example", form)), 403);
}

TEST_F(Site, AValidTokenComesFromNoPageSoHostAndOriginDoNotMatter) {
  api::Settings secured = settings();
  secured.tokens = one_token("t0ken");
  api::Request request = page("hub.example", "http://gui.example");
  EXPECT_EQ(status(request, secured), 401);
  request.authorization = "Bearer t0ken";
  EXPECT_EQ(status(request, secured), 200);
  request.content_type = "text/plain";
  EXPECT_EQ(status(request, secured), 415);
}

TEST_F(Site, WhatIsOpenOnLoopbackWithoutATokenIsClosedToPages) {
  api::Settings secured = settings();
  secured.tokens = one_token("t0ken");
  api::Request request = page("localhost:8082");
  request.target = "/api/v1/telemetry/backup/a";
  EXPECT_EQ(status(request, secured), 200);
  request.origin = "http://evil.example";
  EXPECT_EQ(status(request, secured), 403);
  request.origin.clear();
  request.host = "rebound.example:8082";
  EXPECT_EQ(status(request, secured), 403);
}

class HttpSite : public HttpServer {
 protected:
  int status(const std::string& headers) {
    return status_of(ask("POST /api/v1/backups/a/cancel HTTP/1.1\r\n" + headers +
                         "Content-Length: 2\r\n\r\n{}"));
  }
};

TEST_F(HttpSite, TheHeadersOfARequestReachTheGuard) {
  serve();
  EXPECT_EQ(status("Host: " + address_ + "\r\n"), 200);
  EXPECT_EQ(status("Host: " + address_ + "\r\nOrigin: http://" + address_ + "\r\n"), 200);
  EXPECT_EQ(status("Host: evil.example\r\n"), 403);
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://evil.example\r\n"), 403);
  EXPECT_EQ(status("Host: localhost\r\nContent-Type: text/plain\r\n"), 415);
  EXPECT_EQ(status("Host: localhost\r\nContent-Type: application/json\r\n"), 200);
}

}  // namespace
}  // namespace api_tests
