#include "app/nbd_uri.h"

#include <gtest/gtest.h>

#include "app/options.h"

namespace app {
namespace {

TEST(NbdUris, NameAHostAPortAndAnExport) {
  const NbdUri uri = parse_nbd_uri("nbd://hub.example:10900/web%20%401/disk-0@latest");
  EXPECT_EQ(uri.host, "hub.example");
  EXPECT_EQ(uri.port, 10900);
  EXPECT_EQ(uri.export_name, "web @1/disk-0@latest");
  EXPECT_FALSE(uri.tls);
  EXPECT_EQ(parse_nbd_uri("nbd://127.0.0.1").port, 10809);
  EXPECT_EQ(parse_nbd_uri("nbd://[::1]:1/x").host, "::1");
  EXPECT_EQ(parse_nbd_uri("nbd://[::1]/x").port, 10809);
  EXPECT_TRUE(parse_nbd_uri("nbds://user@h/x").tls);
  EXPECT_EQ(parse_nbd_uri("nbds://user@h/x").host, "h");
}

TEST(NbdUris, NameASocket) {
  const NbdUri uri = parse_nbd_uri("nbd+unix:///a%2Fb?x=1&socket=/run/our%20socket");
  EXPECT_EQ(uri.socket, "/run/our socket");
  EXPECT_EQ(uri.export_name, "a/b");
  EXPECT_EQ(uri.host, "");
}

TEST(NbdUris, OtherTextsAreRefused) {
  for (const char* text : {"http://h/x", "nbd://", "nbd:///x", "nbd://h:x/y", "nbd://h:99999/y",
                           "nbd+unix:///x", "nbd+unix:///x?other=1"}) {
    EXPECT_THROW(parse_nbd_uri(text), UsageError) << text;
  }
  EXPECT_EQ(parse_nbd_uri("nbd://h/100%").export_name, "100%");
  EXPECT_EQ(parse_nbd_uri("nbd://h/%zz").export_name, "%zz");
}

TEST(RestoreCommand, TellsVmAndPointApart) {
  const auto parsed = [](std::vector<const char*> words) {
    words.insert(words.begin(), {"varve", "restore"});
    words.insert(words.end(), {"--to", "x"});
    return std::get<RestoreOptions>(
        parse_command_line(static_cast<int>(words.size()), words.data()));
  };
  EXPECT_EQ(parsed({"web"}).point, "latest");
  EXPECT_EQ(parsed({"web@1"}).vm_name, "web@1");
  EXPECT_EQ(parsed({"web@1@latest"}).vm_name, "web@1");
  EXPECT_EQ(parsed({"web@backup-web-1"}).point, "backup-web-1");
  EXPECT_EQ(parsed({"web@2026-01-01T00:00:00Z"}).point, "2026-01-01T00:00:00Z");
  EXPECT_EQ(parsed({"web", "--disk", "3"}).disk_id, 3u);
  EXPECT_THROW(parsed({""}), UsageError);
  EXPECT_THROW(parsed({"web", "--since", "latest", "--resume"}), UsageError);
}

}  // namespace
}  // namespace app
