// SPDX-License-Identifier: Apache-2.0
#include "app/pull/areas.h"

#include <gtest/gtest.h>

namespace app {
namespace {

constexpr uint64_t kDisk = 1 << 20;

/// "offset+length" of data, "offset+length z" of zeroes.
std::string text_of(const std::vector<engine::CopyRange>& ranges) {
  std::string text;
  for (const engine::CopyRange& range : ranges) {
    text += (text.empty() ? "" : " ") + std::to_string(range.offset) + "+" +
            std::to_string(range.length) + (range.zero ? "z" : "");
  }
  return text;
}

std::string parsed(std::string_view list) {
  return text_of(Areas::parse(list, kDisk, "areas").within(0, kDisk));
}

std::string refused(std::string_view list) {
  try {
    Areas::parse(list, kDisk, "areas");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Areas, AreReadAsNbdkitsExtentlistWritesThem) {
  EXPECT_EQ(parsed(""), "");
  EXPECT_EQ(parsed("# nothing\n\n"), "");
  EXPECT_EQ(parsed("0 512\n"), "0+512");
  EXPECT_EQ(parsed("  64K 0x200 hole,zero # gone\n"), "65536+512z");
  EXPECT_EQ(parsed("0 512 zero\n1024 512 hole\n2048 512 0\n4096 512 3"),
            "0+512z 1024+512 2048+512 4096+512z");
}

TEST(Areas, AreReadAsNbdinfoPrintsAMap) {
  EXPECT_EQ(parsed("         0       65536    0  data\n"
                   "     65536       65536    3  hole,zero\n"
                   "    131072       65536    2  zero\n"),
            "0+65536 65536+131072z");
  EXPECT_EQ(parsed("0 65536 0 clean\n65536 65536 1 dirty\n131072 917504 0 clean\n"), "65536+65536");
  EXPECT_EQ(parsed(R"([{"offset":0,"length":512,"type":0,"description":"clean"},
                       {"offset":512,"length":512,"type":1,"description":"dirty"},
                       {"offset":2048,"length":512,"type":3,"description":"hole,zero"},
                       {"offset":4096,"length":512,"type":3}])"),
            "512+512 2048+512z 4096+512z");
}

TEST(Areas, AreSortedAndJoinedAndDataWinsWhereTwoOverlap) {
  EXPECT_EQ(parsed("1024 512\n0 512\n512 512\n"), "0+1536");
  EXPECT_EQ(parsed("0 4096 zero\n1024 512\n"), "0+4096");
  EXPECT_EQ(parsed("0 1024 zero\n1024 1024\n"), "0+1024z 1024+1024");
}

TEST(Areas, AreCutToTheRangeAskedAbout) {
  const Areas areas = Areas::parse("0 1024\n4096 4096\n", kDisk, "areas");
  EXPECT_EQ(text_of(areas.within(512, 4096)), "512+512 4096+512");
  EXPECT_EQ(text_of(areas.within(1024, 3072)), "");
  EXPECT_EQ(text_of(areas.within(8191, 100)), "8191+1");
  EXPECT_EQ(areas.bytes(), 1024u + 4096u);
}

TEST(Areas, AListThatCannotBeFollowedIsRefusedWithItsLine) {
  EXPECT_EQ(refused("0 512\n12\n"), "areas, line 2: '12' is not 'offset length [type]'");
  EXPECT_EQ(refused("-1 512\n"), "areas, line 1: '-1 512' is not 'offset length [type]'");
  EXPECT_EQ(refused("0 99999999999999999999\n"),
            "areas, line 1: '0 99999999999999999999' is not 'offset length [type]'");
  EXPECT_EQ(refused("0 1 2 3 4\n"), "areas, line 1: '0 1 2 3 4' is not 'offset length [type]'");
  EXPECT_EQ(refused("1048576 1\n"),
            "areas, line 1: 1 bytes at 1048576 end beyond the disk's 1048576 bytes");
  EXPECT_EQ(refused("512 18446744073709551615\n"),
            "areas, line 1: 18446744073709551615 bytes at 512 end beyond the disk's 1048576 bytes");
  EXPECT_EQ(refused("[1]"), "areas, element 0: 'offset' must be a number of bytes");
  EXPECT_EQ(refused("[{\"offset\":0,\"length\":-1}]"),
            "areas, element 0: 'length' must be a number of bytes");
  EXPECT_EQ(refused("[{"), "areas: the JSON is not an array");
}

}  // namespace
}  // namespace app
