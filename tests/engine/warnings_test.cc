// SPDX-License-Identifier: Apache-2.0
#include "engine/values/warnings.h"

#include <gtest/gtest.h>

namespace engine {
namespace {

class Warnings : public testing::Test {
 protected:
  /// A well-behaved full of 1 GiB.
  Warnings() {
    disk_.index = 1;
    disk_.capacity_bytes = 1 << 30;
    disk_.change_id = "uuid1/2";
    disk_.counters.covered_bytes = 1 << 30;
    disk_.counters.bytes_stored = 1000;
  }
  void make_incremental() {
    disk_.type = BackupType::incremental;
    disk_.parent_image_id = "parent";
    disk_.parent_change_id = disk_.handed_out_change_id = "uuid1/1";
    disk_.counters.covered_bytes = 65536;
  }
  std::vector<WarningCode> codes(std::optional<uint64_t> previous_full_stored_bytes = {},
                                 bool change_id_asked = true) const {
    std::vector<WarningCode> codes;
    for (const Warning& warning :
         sealed_warnings(disk_, previous_full_stored_bytes, change_id_asked)) {
      EXPECT_EQ(warning.disk_index, 1u);
      codes.push_back(warning.code);
    }
    return codes;
  }
  using Codes = std::vector<WarningCode>;
  JobDisk disk_;
};

TEST_F(Warnings, AGoodFullAndAGoodIncrementalHaveNone) {
  EXPECT_EQ(codes(1000), Codes{});
  make_incremental();
  EXPECT_EQ(codes(), Codes{});
}

TEST_F(Warnings, A49SampledZeroesAreCountedOnAFullCopy) {
  disk_.counters.sampled_zero_requests = 3;
  disk_.counters.sampled_zero_bytes = 3 * 33554432;
  EXPECT_EQ(codes(), Codes{WarningCode::sampled_zeroes});
  const std::string message = sealed_warnings(disk_, std::nullopt, true).front().message;
  EXPECT_NE(message.find("3 chunks (100663296 bytes)"), std::string::npos) << message;
}

TEST_F(Warnings, AnIncrementalCopyChecksItsZeroesInFull) {
  make_incremental();
  disk_.counters.sampled_zero_requests = 3;
  EXPECT_EQ(codes(), Codes{});
  disk_.handed_out_change_id = "";  // the client was told nothing and copied everything
  EXPECT_EQ(codes(), Codes{WarningCode::sampled_zeroes});
}

TEST_F(Warnings, AFullThatDoesNotCoverTheDiskIsReported) {
  disk_.counters.covered_bytes -= 512;
  EXPECT_EQ(codes(), Codes{WarningCode::full_not_covered});
}

TEST_F(Warnings, AFullOfLessThanHalfThePreviousOneIsReported) {
  EXPECT_EQ(codes(2000), Codes{});
  EXPECT_EQ(codes(2001), Codes{WarningCode::full_not_covered});
  EXPECT_EQ(codes(UINT64_MAX), Codes{WarningCode::full_not_covered});
}

TEST_F(Warnings, AResetOfChangeTrackingIsReported) {
  make_incremental();
  disk_.change_id = "uuid9/1";
  EXPECT_EQ(codes(), Codes{WarningCode::change_tracking_reset});
  disk_.counters.sampled_zero_requests = 1;
  EXPECT_EQ(codes(), (Codes{WarningCode::sampled_zeroes, WarningCode::change_tracking_reset}));
}

TEST_F(Warnings, AnUnusableChangeIdIsReported) {
  disk_.change_id = "no slash";
  EXPECT_EQ(codes(), Codes{WarningCode::change_id_unusable});
  make_incremental();
  disk_.change_id = "a/b/c";
  EXPECT_EQ(codes(), Codes{WarningCode::change_id_unusable});
  const std::string message = sealed_warnings(disk_, std::nullopt, true).front().message;
  EXPECT_NE(message.find("never handed out"), std::string::npos) << message;
  EXPECT_EQ(message.find("the next backup copies"), std::string::npos)
      << "only a client that asks for the change id does: " << message;
}

TEST_F(Warnings, AWriterThatAsksForNoChangeIdNeedsNoneAndHasLookedAtItsZeroes) {
  disk_.change_id = "no slash";
  disk_.counters.sampled_zero_requests = 3;
  EXPECT_EQ(codes(std::nullopt, false), Codes{});
  disk_.counters.covered_bytes -= 512;
  EXPECT_EQ(codes(std::nullopt, false), Codes{WarningCode::full_not_covered});
}

TEST_F(Warnings, ADiskWithoutAPointWasAddedAndASmallerOneShrank) {
  EXPECT_EQ(standalone_warning(2, 1024, std::nullopt)->code, WarningCode::disk_added);
  Point parent;
  parent.capacity_bytes = 2048;
  EXPECT_EQ(standalone_warning(2, 1024, parent)->code, WarningCode::disk_shrunk);
  EXPECT_EQ(standalone_warning(2, 1024, parent)->disk_index, 2u);
  EXPECT_EQ(standalone_warning(2, 2048, parent), std::nullopt);
  EXPECT_EQ(standalone_warning(2, 4096, parent), std::nullopt);
}

TEST_F(Warnings, AChainIsLongFromItsTwoHundredthImageOn) {
  EXPECT_EQ(long_chain_warning(1, 199), std::nullopt);
  EXPECT_EQ(long_chain_warning(1, 200)->code, WarningCode::long_chain);
  EXPECT_EQ(long_chain_warning(1, 200)->disk_index, 1u);
}

}  // namespace
}  // namespace engine
