// SPDX-License-Identifier: Apache-2.0
#include "io/http_url.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace io {
namespace {

TEST(HttpUrls, AreTakenApart) {
  const HttpUrl plain = HttpUrl::parse("http://hooks.example:8080/a/b?c=d#e");
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.host, "hooks.example");
  EXPECT_EQ(plain.port, "8080");
  EXPECT_EQ(plain.target, "/a/b?c=d");
  const HttpUrl tls = HttpUrl::parse("https://[fd00::1]");
  EXPECT_TRUE(tls.tls);
  EXPECT_EQ(tls.host, "fd00::1");
  EXPECT_EQ(tls.port, "443");
  EXPECT_EQ(tls.target, "/");
  EXPECT_EQ(HttpUrl::parse("http://a").port, "80");
  EXPECT_EQ(HttpUrl::parse("http://a?b").target, "/?b");
}

TEST(HttpUrls, HaveAPathBelowWhichThingsAreCalled) {
  EXPECT_EQ(HttpUrl::parse("http://localhost:9081").base_path(), "");
  EXPECT_EQ(HttpUrl::parse("http://a/").base_path(), "");
  EXPECT_EQ(HttpUrl::parse("http://[::1]:81/behind/it//").base_path(), "/behind/it");
  EXPECT_THROW(HttpUrl::parse("http://a/b?c").base_path(), std::invalid_argument);
}

TEST(HttpUrls, NameTheHostWithoutItsUsualPort) {
  EXPECT_EQ(HttpUrl::parse("http://a:80").authority(), "a");
  EXPECT_EQ(HttpUrl::parse("https://a:80").authority(), "a:80");
  EXPECT_EQ(HttpUrl::parse("https://[::1]:443/x").authority(), "[::1]");
  EXPECT_EQ(HttpUrl::parse("http://[::1]:81/x").authority(), "[::1]:81");
}

TEST(HttpUrls, RefuseWhatCannotBeCalled) {
  for (const char* wrong :
       {"", "a", "localhost:9081", "ftp://a/", "http://", "https:///x", "http://:80/", "http://a:0",
        "http://a:", "http://a:65536/", "http://a:99999", "http://a:x/", "http://a:+1",
        "http://[::1", "http://[::1]x", "http://[]", "http://a/b c", "http://u@a",
        "https://user:secret@a/"}) {
    EXPECT_THROW(HttpUrl::parse(wrong), std::invalid_argument) << wrong;
  }
}

TEST(HttpUrl, APasswordIsNotShown) {
  EXPECT_EQ(without_password("nbd://user:t0p@host:10809/disk"),
            "nbd://user:\u2026@host:10809/disk");
  EXPECT_EQ(without_password("http://u:a@b@host"), "http://u:\u2026@host");
  EXPECT_EQ(without_password("nbds+unix://u:p@/x?socket=/s:1@2"),
            "nbds+unix://u:\u2026@/x?socket=/s:1@2");
  for (const char* const bare :
       {"nbd://host:1/a@b", "nbd://user@host:1/", "/srv/a:b@c", "", "://", "x://:@"}) {
    const std::string shown = without_password(bare);
    EXPECT_EQ(shown, std::string_view(bare) == "x://:@" ? "x://:\u2026@" : bare);
  }
}

}  // namespace
}  // namespace io
