// SPDX-License-Identifier: Apache-2.0
#include "nbd/uri.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace nbd {
namespace {

TEST(Uris, NameAHostAPortAndAnExport) {
  const Uri uri = parse_uri("nbd://hub.example:10900/web%20%401/disk-0@latest");
  EXPECT_EQ(uri.host, "hub.example");
  EXPECT_EQ(uri.port, 10900);
  EXPECT_EQ(uri.export_name, "web @1/disk-0@latest");
  EXPECT_FALSE(uri.tls);
  EXPECT_EQ(parse_uri("nbd://127.0.0.1").port, 10809);
  EXPECT_EQ(parse_uri("nbd://[::1]:1/x").host, "::1");
  EXPECT_EQ(parse_uri("nbd://[::1]/x").port, 10809);
  EXPECT_TRUE(parse_uri("nbds://user@h/x").tls);
  EXPECT_EQ(parse_uri("nbds://user@h/x").host, "h");
}

TEST(Uris, NameASocket) {
  const Uri uri = parse_uri("nbd+unix:///a%2Fb?x=1&socket=/run/our%20socket");
  EXPECT_EQ(uri.socket, "/run/our socket");
  EXPECT_EQ(uri.export_name, "a/b");
  EXPECT_EQ(uri.host, "");
}

TEST(Uris, NameWhatAClientProvesItselfWith) {
  const Uri uri = parse_uri("nbds://al%20ice@h/x?tls-psk-file=/k%20eys&tls-hostname=hub&new=1");
  EXPECT_EQ(uri.user, "al ice");
  EXPECT_EQ(uri.tls_psk, "/k eys");
  EXPECT_EQ(uri.tls_host, "hub");
  EXPECT_EQ(parse_uri("nbds://h/x?tls-certificates=/pki").tls_certificates, "/pki");
  EXPECT_EQ(parse_uri("nbds+unix://bob@/x?socket=/s").user, "bob");
  EXPECT_EQ(to_text(uri), "nbds://h:10809/x");
}

TEST(Uris, OtherTextsAreRefused) {
  for (const char* text : {"http://h/x", "nbd://", "nbd:///x", "nbd://h:x/y", "nbd://h:99999/y",
                           "nbd+unix:///x", "nbd+unix:///x?other=1"}) {
    EXPECT_THROW(parse_uri(text), std::invalid_argument) << text;
  }
  EXPECT_EQ(parse_uri("nbd://h/100%").export_name, "100%");
  EXPECT_EQ(parse_uri("nbd://h/%zz").export_name, "%zz");
}

TEST(Uris, AreWrittenAsTheyAreRead) {
  const auto again = [](const Uri& uri) { return to_text(parse_uri(to_text(uri))); };
  const std::vector<Uri> uris = {
      {.host = "::1", .port = 1, .export_name = "web \xc3\xbc@1?#/disk-0@latest"},
      {.host = "hub.example", .export_name = "100%", .tls = true},
      {.socket = "/run/our socket&co=1", .export_name = "a?b"},
  };
  EXPECT_EQ(to_text(uris[0]), "nbd://[::1]:1/web%20%C3%BC@1%3F%23/disk-0@latest");
  EXPECT_EQ(to_text(uris[1]), "nbds://hub.example:10809/100%25");
  EXPECT_EQ(to_text(uris[2]), "nbd+unix:///a%3Fb?socket=/run/our%20socket%26co%3D1");
  for (const Uri& uri : uris) {
    EXPECT_EQ(again(uri), to_text(uri));
    EXPECT_EQ(parse_uri(to_text(uri)).export_name, uri.export_name);
    EXPECT_EQ(parse_uri(to_text(uri)).socket, uri.socket);
  }
}

}  // namespace
}  // namespace nbd
