// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/replay.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/crash/disk.h"
#include "tests/crash/rng.h"

namespace crash {
namespace {

constexpr const char* kPath = "a";

/// A disk with one empty file, and what it holds when everything that was synced is on it.
class ReplayOfADisk : public ::testing::Test {
 protected:
  ReplayOfADisk() {
    start_.put(kPath, Bytes());
    file_ = start_.names.at(kPath).file;
    disk_.emplace(start_);
  }
  void grow(uint64_t size) {
    disk_->end_resize(disk_->begin_resize(file_, size, true), file_, size);
  }
  void cut(uint64_t size) {
    disk_->end_resize(disk_->begin_resize(file_, size, false), file_, size);
  }
  void sync() { disk_->done(disk_->begin_sync(file_)); }
  Bytes after_all() {
    Replay replay(start_, disk_->log());
    while (!replay.at_end()) replay.advance();
    Rng rng(1);
    std::string told;
    return *replay.build(rng, Parts(), told).find(kPath);
  }

  State start_;
  FileId file_ = kNoFile;
  std::optional<Disk> disk_;
  const Bytes sector_ = Bytes(kSector, std::byte{7});
};

TEST_F(ReplayOfADisk, AGrowthCutsOffNoWriteThatIsUnderWay) {
  const uint64_t write = disk_->begin_write(file_, 2 * kSector, sector_);
  grow(2 * kSector);
  sync();
  disk_->end_write(write, file_, 2 * kSector, sector_);
  sync();
  Bytes expected(2 * kSector);
  expected.insert(expected.end(), sector_.begin(), sector_.end());
  EXPECT_EQ(after_all(), expected);
}

TEST_F(ReplayOfADisk, ACutEndsWhatWasWrittenBehindIt) {
  disk_->end_write(disk_->begin_write(file_, 0, sector_), file_, 0, sector_);
  cut(0);
  sync();
  EXPECT_EQ(after_all(), Bytes());
}

}  // namespace
}  // namespace crash
