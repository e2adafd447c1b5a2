// SPDX-License-Identifier: Apache-2.0
#include <sstream>

#include "tests/engine/killed_engine.h"

/// A job removes only files that it has made: an older copy of the catalogue and a second that
/// comes again give it the name of a point that the catalogue has forgotten.
namespace engine_test {
namespace {

class OwnImage : public KilledEngine {
 protected:
  const Time kSecond = Time(std::chrono::seconds(1'759'913'694));

  void SetUp() override {
    KilledEngine::SetUp();
    register_vm("pgtest1", 1);
    hub.reset();
    fs::copy(temp.file("catalogue.db"), temp.file("old"));
    come_back();
    point_ = back_up("pgtest1", BackupType::full, "point", 1).job.disks[0].image_path;
    image_ = content(point_);
    sidecar_ = content(point_ + ".json");
    manifest_ = content(point_ + ".sums");
    hub.reset();
    fs::remove(temp.file("catalogue.db-wal"));
    fs::remove(temp.file("catalogue.db-shm"));
    fs::copy(temp.file("old"), temp.file("catalogue.db"), fs::copy_options::overwrite_existing);
    come_back();
  }

  void come_back(std::function<void(EngineOptions&)> adjust = {}) {
    restart(std::move(adjust));
    hub->clock->hold(kSecond);
  }

  static std::string content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }

  /// A job that has the point's name: the point was out of sight when it began.
  BackupView start_under_the_points_name() {
    fs::rename(point_, temp.file("image"));
    fs::rename(point_ + ".json", temp.file("sidecar"));
    fs::rename(point_ + ".sums", temp.file("manifest"));
    const BackupView backup = start("pgtest1");
    EXPECT_EQ(backup.job.disks[0].image_path, point_);
    fs::rename(temp.file("image"), point_);
    fs::rename(temp.file("sidecar"), point_ + ".json");
    fs::rename(temp.file("manifest"), point_ + ".sums");
    return backup;
  }

  void expect_point_untouched() {
    EXPECT_TRUE(content(point_) == image_);
    EXPECT_EQ(content(point_ + ".json"), sidecar_);
    EXPECT_TRUE(content(point_ + ".sums") == manifest_);
    EXPECT_FALSE(fs::exists(point_ + ".partial"));
  }

  std::string point_, image_, sidecar_, manifest_;
};

TEST_F(OwnImage, AStartRefusesANameThatIsTaken) {
  std::string details;
  try {
    start("pgtest1");
  } catch (const Refusal& refusal) {
    EXPECT_EQ(refusal.code, "prepare_failed");
    details = refusal.details;
  }
  EXPECT_NE(details.find("is there already"), std::string::npos) << details;
  expect_point_untouched();
}

TEST_F(OwnImage, ACancelledJobLeavesAPointOfItsName) {
  const BackupView backup = start_under_the_points_name();
  engine().cancel(backup.job.id, "");
  expect_point_untouched();
}

TEST_F(OwnImage, AFailedJobLeavesAPointOfItsName) {
  const BackupView backup = start_under_the_points_name();
  Writer writer(*hub, backup.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  hub->reached = [](std::string_view reached) {
    if (reached == "sealed") throw std::system_error(EIO, std::generic_category(), "injected");
  };
  EXPECT_EQ(refusal_of([&] { complete(backup, 0, change_id(0, 1)); }), "seal_failed");
  expect_point_untouched();
}

TEST_F(OwnImage, AJobThatTimesOutLeavesAPointOfItsName) {
  come_back([](EngineOptions& options) {
    options.timeouts.first_connect = std::chrono::milliseconds(50);
  });
  const BackupView backup = start_under_the_points_name();
  EXPECT_TRUE(wait_until([&] { return state_of(backup.job.id) == "failed"; }));
  expect_point_untouched();
}

TEST_F(OwnImage, ARestartLeavesAPointOfTheNameOfAJobThatWasKilled) {
  const BackupView backup = start_under_the_points_name();
  copy_at("sealing", 1);
  Writer writer(*hub, backup.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  // The point's manifest has the name that this one's would get.
  EXPECT_EQ(refusal_of([&] { complete(backup, 0, change_id(0, 1)); }), "seal_failed");
  writer.disconnect();
  ASSERT_TRUE(copied_);
  come_up_on_copy();
  EXPECT_EQ(state_of(backup.job.id), "failed");
  expect_point_untouched();
}

TEST_F(OwnImage, AShutdownLeavesAPointOfTheNameOfARunningJob) {
  start_under_the_points_name();
  restart();
  expect_point_untouched();
}

}  // namespace
}  // namespace engine_test
