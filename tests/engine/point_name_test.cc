// SPDX-License-Identifier: Apache-2.0
#include "engine/values/point_name.h"

#include <gtest/gtest.h>

namespace engine {
namespace {

TEST(PointNames, TheLastAtAndTheLastSlashSeparate) {
  const auto name = parse_point_name("Büro @2/web/disk-13@backup-x-1");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->vm_name, "Büro @2/web");
  EXPECT_EQ(name->disk_index, 13u);
  EXPECT_EQ(name->point, "backup-x-1");
  EXPECT_EQ(point_export_name(name->vm_name, name->disk_index, name->point),
            "Büro @2/web/disk-13@backup-x-1");
}

TEST(PointNames, OtherTextsAreNone) {
  for (const char* text : {"", "vm", "vm@latest", "/disk-0@latest", "vm/disk-@latest",
                           "vm/disk-x@latest", "vm/disk-0x@latest", "vm/disk--1@latest",
                           "vm/disk-99999999999@latest", "vm/disc-0@latest", "vm/disk-0"}) {
    EXPECT_FALSE(parse_point_name(text)) << text;
  }
}

}  // namespace
}  // namespace engine
