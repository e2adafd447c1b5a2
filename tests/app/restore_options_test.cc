// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tests/app/parse.h"

namespace app {
namespace {

TEST(RestoreCommand, TellsVmAndPointApart) {
  const auto parsed = [](std::vector<const char*> words, const char* target = "x") {
    words.insert(words.begin(), "restore");
    words.insert(words.end(), {"--to", target});
    return parse<RestoreOptions>(std::move(words));
  };
  EXPECT_EQ(parsed({"web"}).point, "latest");
  EXPECT_EQ(parsed({"web@1"}).vm_name, "web@1");
  EXPECT_EQ(parsed({"web@1@latest"}).vm_name, "web@1");
  EXPECT_EQ(parsed({"web@backup-web-1"}).point, "backup-web-1");
  EXPECT_EQ(parsed({"web@2026-01-01T00:00:00Z"}).point, "2026-01-01T00:00:00Z");
  EXPECT_EQ(parsed({"web", "--disk", "3"}).disk_id, 3u);
  EXPECT_THROW(parsed({""}), UsageError);
  EXPECT_EQ(parsed({"web"}, "nbd://h:1/y").target, "nbd://h:1/y");
  EXPECT_THROW(parsed({"web"}, "nbd://h:x/y"), UsageError);
  EXPECT_THROW(parsed({"web", "--since", "latest", "--resume"}), UsageError);
}

}  // namespace
}  // namespace app
