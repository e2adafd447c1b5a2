// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "qcow/chain/layer.h"
#include "tests/engine/killed_engine.h"

/// A decided job is published, whatever holds it up: docs/jobs.md, "Publish".
namespace engine_test {
namespace {

using Sector = std::array<char, 512>;

Sector read_sector(const std::string& path, int number) {
  Sector sector{};
  std::ifstream(path).seekg(number * 512).read(sector.data(), sector.size());
  return sector;
}

void write_sector(const std::string& path, int number, const Sector& sector) {
  std::fstream(path, std::ios::in | std::ios::out).seekp(number * 512).write(sector.data(), 512);
}

class Decided : public KilledEngine {
 protected:
  void SetUp() override {
    KilledEngine::SetUp();
    register_vm("pgtest1");
    back_up("pgtest1", BackupType::full, "one", 1);
  }

  /// An incremental that wants nothing but its last `complete`.
  BackupView start_and_complete_first() {
    const BackupView backup = start("pgtest1", BackupType::incremental);
    for (const JobDisk& disk : backup.job.disks) {
      writers_.push_back(std::make_unique<Writer>(*hub, disk.export_name));
      EXPECT_TRUE(writers_.back()->connect());
    }
    complete(backup, 0, change_id(0, 2));
    return backup;
  }
  std::string complete_last(const BackupView& backup) {
    const std::string refusal = refusal_of([&] { complete(backup, 1, change_id(1, 2)); });
    writers_.clear();
    return refusal;
  }
  /// Killed right after the decision; the copy is in place and nothing runs.
  BackupView kill_after_decision() {
    copy_at("decided", 1);
    const BackupView backup = back_up("pgtest1", BackupType::incremental, "two", 2);
    EXPECT_TRUE(copied_);
    put_copy_in_place();
    return backup;
  }
  static std::string partial_of(const BackupView& backup, uint32_t disk) {
    return backup.job.disks[disk].image_path + ".partial";
  }
  static qcow::Header header_of(const std::string& path) {
    io::RingRuntime own;  // the hub's rings belong to other threads
    const auto read = [&]() -> io::Task<qcow::Header> {
      const auto file = co_await own.runtime().files.open(path, io::OpenMode::read_only);
      co_return co_await qcow::read_header(*file, "image");
    };
    return own.ring().run(read());
  }

  std::vector<std::unique_ptr<Writer>> writers_;
};

TEST_F(Decided, AJobWhosePublishFailsIsPublishedLaterAndRepeatedCompletesSaySo) {
  for (const std::string step : {"decided", "header", "sidecar", "renamed", "publish"}) {
    SCOPED_TRACE(step);
    const size_t points = engine().chain({.vm_name = "pgtest1"}).points.size();
    const BackupView backup = start_and_complete_first();
    std::atomic<bool> broken = true;
    hub->reached = [&](std::string_view reached) {
      if (reached == step && broken) {
        throw std::system_error(EIO, std::generic_category(), "injected");
      }
    };
    EXPECT_EQ(complete_last(backup), "being_published");
    EXPECT_EQ(refusal_of([&] { complete(backup, 0, change_id(0, 2)); }), "being_published");
    EXPECT_EQ(state_of(backup.job.id), "finalizing");
    EXPECT_NE(engine().backup(backup.job.id).job.error_message, "");
    EXPECT_EQ(refusal_of([&] { engine().cancel(backup.job.id, ""); }), "job_not_running");
    EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), points);
    broken = false;
    ASSERT_TRUE(wait_until([&] { return state_of(backup.job.id) == "completed"; }));
    hub->reached = [](std::string_view) {};
    EXPECT_EQ(complete(backup, 1, change_id(1, 2)).job_state, JobState::completed);
    EXPECT_EQ(engine().backup(backup.job.id).job.error_message, "");
    EXPECT_TRUE(wait_until([&] { return engine().exports().empty(); }));
    expect_nothing_left();
    expect_sound("pgtest1", 0, points + 1);
    expect_sound("pgtest1", 1, points + 1);
  }
}

TEST_F(Decided, AShutdownLeavesAJobThatIsHeldUpToTheNextStart) {
  const BackupView backup = start_and_complete_first();
  hub->reached = [](std::string_view reached) {
    if (reached == "renamed") throw std::system_error(EIO, std::generic_category(), "injected");
  };
  EXPECT_EQ(complete_last(backup), "being_published");
  restart();
  EXPECT_EQ(state_of(backup.job.id), "completed");
  expect_sound("pgtest1", 1, 2);
}

TEST_F(Decided, AHeaderTornBetweenItsSectorsIsWrittenAgain) {
  for (int mix = 0; mix < 4; ++mix) {
    SCOPED_TRACE(mix);
    restart();
    const std::string vm = "torn" + std::to_string(mix);
    register_vm(vm, 1);
    back_up(vm, BackupType::full, "one", 1);
    copy_at("decided", 1);
    const BackupView backup = back_up(vm, BackupType::incremental, "two", 2);
    const Time completed = *engine().backup(backup.job.id).job.completed_at;
    const std::array<Sector, 2> written = {read_sector(backup.job.disks[0].image_path, 0),
                                           read_sector(backup.job.disks[0].image_path, 1)};
    put_copy_in_place();
    for (int sector = 0; sector < 2; ++sector) {
      if ((mix >> sector & 1) != 0) write_sector(partial_of(backup, 0), sector, written[sector]);
    }
    restart();
    EXPECT_EQ(state_of(backup.job.id), "completed");
    expect_sound(vm, 0, 2);
    const qcow::Header header = header_of(backup.job.disks[0].image_path);
    EXPECT_TRUE(header.sealed());
    ASSERT_TRUE(header.record);
    EXPECT_TRUE(header.record->published());
    EXPECT_EQ(header.record->publish_time, completed.time_since_epoch().count());
    back_up(vm, BackupType::incremental, "three", 3);
    expect_sound(vm, 0, 3);
  }
}

TEST_F(Decided, AnImageThatAnotherProgramHoldsIsPublishedWhenItIsFree) {
  const BackupView backup = kill_after_decision();
  const int fd = ::open(partial_of(backup, 1).c_str(), O_RDONLY);
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
  ASSERT_EQ(::fcntl(fd, F_OFD_SETLK, &lock), 0);
  restart();
  EXPECT_EQ(state_of(backup.job.id), "finalizing");
  EXPECT_NE(engine().backup(backup.job.id).job.error_message.find("in use by another process"),
            std::string::npos);
  EXPECT_EQ(refusal_of([&] { complete(backup, 1, change_id(1, 2)); }), "being_published");
  ::close(fd);
  EXPECT_TRUE(wait_until([&] { return state_of(backup.job.id) == "completed"; }));
  expect_sound("pgtest1", 0, 2);
  expect_sound("pgtest1", 1, 2);
}

TEST_F(Decided, ADirectoryThatIsAwayHoldsAJobUpAndProvesNothing) {
  const BackupView backup = kill_after_decision();
  const std::string directory = fs::path(partial_of(backup, 0)).parent_path();
  fs::rename(directory, temp.file("away"));
  restart();
  EXPECT_EQ(state_of(backup.job.id), "finalizing");
  fs::remove_all(directory);
  fs::rename(temp.file("away"), directory);
  EXPECT_TRUE(wait_until([&] { return state_of(backup.job.id) == "completed"; }));
  expect_sound("pgtest1", 0, 2);
}

TEST_F(Decided, AJobWhoseImageIsGoneOrAnotherFailsAndTakesNothingAlong) {
  for (const bool replaced : {false, true}) {
    SCOPED_TRACE(replaced);
    restart();
    const std::string point = engine().chain({.vm_name = "pgtest1"}).points[0].point.image_path;
    const BackupView backup = kill_after_decision();
    fs::remove(partial_of(backup, 1));
    if (replaced) fs::copy_file(point, backup.job.disks[1].image_path);
    restart();
    EXPECT_EQ(state_of(backup.job.id), "failed");
    EXPECT_NE(engine().backup(backup.job.id).job.error_message, "");
    EXPECT_EQ(fs::exists(backup.job.disks[1].image_path), replaced);
    fs::remove(backup.job.disks[1].image_path);
    expect_nothing_left();
    expect_sound("pgtest1", 0, 1);
    expect_sound("pgtest1", 1, 1);
  }
}

TEST_F(Decided, AnotherFileOfTheImagesNameHoldsAJobUpUntilItIsMovedAway) {
  const BackupView backup = kill_after_decision();
  const std::string image = backup.job.disks[1].image_path;
  for (const bool is_copy : {false, true}) {
    SCOPED_TRACE(is_copy);
    hub.reset();
    if (is_copy) {
      fs::copy_file(partial_of(backup, 1), image);
    } else {
      std::ofstream(image) << "a file of somebody else";
    }
    restart();
    EXPECT_EQ(state_of(backup.job.id), "finalizing");
    EXPECT_NE(engine().backup(backup.job.id).job.error_message.find(image), std::string::npos);
    EXPECT_TRUE(fs::exists(partial_of(backup, 1)));
    EXPECT_TRUE(fs::exists(image));
    hub.reset();
    fs::remove(image);
  }
  restart();
  EXPECT_EQ(state_of(backup.job.id), "completed");
  expect_sound("pgtest1", 0, 2);
  expect_sound("pgtest1", 1, 2);
}

}  // namespace
}  // namespace engine_test
