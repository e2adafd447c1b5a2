// SPDX-License-Identifier: Apache-2.0
#include "engine/values/signals.h"

#include <gtest/gtest.h>

namespace engine {
namespace {

constexpr uint64_t kMib = 1 << 20;

/// A disk of 100 GiB with 20 GiB of ordinary data and increments of 200 MiB.
class Signals : public testing::Test {
 protected:
  Signals() {
    disk_.index = 1;
    disk_.type = BackupType::incremental;
    disk_.capacity_bytes = uint64_t{100} << 30;
    write(200, 40);
    for (int i = 0; i < 5; ++i) history_.push_back(point(BackupType::incremental, 200, 0.1 * i));
    history_.push_back(point(BackupType::full, 20 << 10, 0.3));
  }

  Point point(BackupType type, uint64_t mib, double incompressible) const {
    Point point{.type = type, .capacity_bytes = disk_.capacity_bytes, .bytes_stored = mib * kMib};
    point.counters.bytes_received = point.counters.bytes_stored = mib * kMib;
    point.counters.judged_bytes = mib * kMib;
    point.counters.incompressible_bytes =
        static_cast<uint64_t>(incompressible * static_cast<double>(mib * kMib));
    return point;
  }

  void write(uint64_t mib, uint64_t incompressible_mib) {
    disk_.counters.bytes_received = disk_.counters.bytes_stored = mib * kMib;
    disk_.counters.judged_bytes = mib * kMib;
    disk_.counters.incompressible_bytes = incompressible_mib * kMib;
  }

  std::vector<WarningCode> codes() const {
    std::vector<WarningCode> codes;
    for (const Warning& warning : signal_warnings(disk_, parent_, history_)) {
      EXPECT_EQ(warning.disk_index, 1u);
      codes.push_back(warning.code);
    }
    return codes;
  }

  using Codes = std::vector<WarningCode>;
  JobDisk disk_;
  ParentComparison parent_{.samples = 64};
  std::vector<Point> history_;
};

TEST_F(Signals, OfAnOrdinaryIncrementRaiseNoFlag) { EXPECT_EQ(codes(), Codes{}); }

TEST_F(Signals, DataThatBecomesIncompressibleWhereItLiesIsEncryption) {
  write(1000, 900);
  parent_.were_compressible = 60;
  EXPECT_EQ(codes(), Codes{WarningCode::encrypted});
  EXPECT_EQ(signal_warnings(disk_, parent_, history_)[0].message,
            "disk 1: looks encrypted: 90 % of the data in this backup cannot be compressed, and 94 "
            "% of that lies where the parent holds data that can, about 843 MiB; 30 % is usual for "
            "this disk; look at the guest before older backups are deleted");
  history_.clear();
  EXPECT_EQ(codes(), Codes{WarningCode::encrypted}) << "the parent's content is enough";
}

TEST_F(Signals, EncryptionNeedsMostOfTheDataMostlyOverOtherDataAndMoreThanAFileOrTwo) {
  write(1000, 590);
  parent_.were_compressible = 60;
  EXPECT_EQ(codes(), Codes{}) << "an upgrade";
  write(700, 690);
  parent_.were_compressible = 31;
  EXPECT_EQ(codes(), Codes{}) << "archives in free space";
  parent_.were_compressible = 60;
  write(215, 215);
  EXPECT_EQ(codes(), Codes{}) << "less than 1 % of the disk's data";
  write(700, 690);
  EXPECT_EQ(codes(), Codes{WarningCode::encrypted});
  parent_ = {.samples = 15, .were_compressible = 15};
  EXPECT_EQ(codes(), Codes{}) << "too few places";
}

TEST_F(Signals, MuchIncompressibleDataOnADiskThatHasLittleIsAJump) {
  write(3000, 2900);
  EXPECT_EQ(codes(), Codes{WarningCode::entropy_jump});
  write(2000, 1950);
  EXPECT_EQ(codes(), Codes{}) << "not a tenth of the disk's data";
  write(3000, 2600);
  EXPECT_EQ(codes(), Codes{}) << "87 %";
  write(3000, 2900);
  for (Point& point : history_) point.counters.incompressible_bytes = point.bytes_stored / 2;
  EXPECT_EQ(codes(), Codes{}) << "usual for this disk";
  history_.clear();
  EXPECT_EQ(codes(), Codes{}) << "nothing is known";
}

TEST_F(Signals, AFullThatIsAllIncompressibleIsAJumpToo) {
  disk_.type = BackupType::full;
  parent_ = {};
  write(20 << 10, 20 << 10);
  EXPECT_EQ(codes(), Codes{WarningCode::entropy_jump});
  history_.clear();
  EXPECT_EQ(codes(), Codes{}) << "the first backup of a disk";
}

TEST_F(Signals, AChangedLayoutIsNamedAndALostOneIsAnotherDisk) {
  parent_.layout_changes = {"the ext4 at byte 0 (a) is now ext4 (b)", "the MBR is gone"};
  EXPECT_EQ(codes(), Codes{WarningCode::layout_changed});
  EXPECT_EQ(signal_warnings(disk_, parent_, history_)[0].message,
            "disk 1: the layout has changed since the parent: the ext4 at byte 0 (a) is now ext4 "
            "(b), the MBR is gone");
  parent_.is_another_disk = true;
  EXPECT_EQ(codes(), Codes{WarningCode::wrong_disk});
}

TEST_F(Signals, SharesAreOfTheDiskAndOfWhatWasSent) {
  disk_.counters = {.bytes_received = 300 * kMib,
                    .bytes_zeroed = 100 * kMib,
                    .bytes_elided = 30 * kMib,
                    .bytes_stored = 1 << 30};
  EXPECT_EQ(signals_of(disk_.counters, disk_.capacity_bytes).incompressible_share, std::nullopt);
  disk_.counters.judged_bytes = 256 * kMib;
  disk_.counters.incompressible_bytes = 64 * kMib;
  disk_.counters.zero_data_bytes = 128 * kMib;
  const DiskSignals signals = signals_of(disk_.counters, disk_.capacity_bytes);
  EXPECT_DOUBLE_EQ(*signals.change_share, 0.01);
  EXPECT_DOUBLE_EQ(*signals.incompressible_share, 0.25);
  EXPECT_DOUBLE_EQ(*signals.zero_share, 250.0 / 400);
  EXPECT_DOUBLE_EQ(*signals.elided_share, 0.1);
  EXPECT_EQ(signals_of({}, 1000).change_share, std::nullopt) << "a catalogue that was rebuilt";
}

TEST(Flags, AreTheUnusualWarningsOfOneDisk) {
  const std::vector<Warning> warnings = {{WarningCode::encrypted, 0, "mine"},
                                         {WarningCode::encrypted, 1, "another's"},
                                         {WarningCode::disk_added, 0, "no flag"},
                                         {WarningCode::layout_changed, 0, "mine too"}};
  const std::vector<Warning> flags = flags_of(warnings, 0);
  ASSERT_EQ(flags.size(), 2u);
  EXPECT_EQ(flags[1].message, "mine too");
}

}  // namespace
}  // namespace engine
