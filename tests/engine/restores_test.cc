// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/killed_engine.h"

/// Restores, killed at each step and beside deletions.
namespace engine_test {
namespace {

class Restores : public KilledEngine {
 protected:
  RestoreView make(const std::string& backup_id, RestoreMode mode = RestoreMode::writable) {
    return engine().create_restore({.backup_id = backup_id, .mode = mode});
  }
  std::vector<std::string> overlays() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(temp.file("repository"))) {
      if (entry.path().extension() == ".overlay") found.push_back(entry.path().string());
    }
    return found;
  }
  void wait_until_dropped() {
    for (int i = 0; i < 500 && !(engine().restores().empty() && overlays().empty()); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
};

TEST_F(Restores, AKillWhileOneIsMadeOrDroppedLeavesNothingOfIt) {
  register_vm("pgtest1", 2);
  const std::string job = back_up("pgtest1", BackupType::full, "one", 1).job.id;
  for (const std::string step : {"restore_inserted", "restore_made", "restore_dropping"}) {
    SCOPED_TRACE(step);
    copy_at(step, 1);
    const RestoreView view = make(job);
    engine().drop_restore(view.restore.id);
    ASSERT_TRUE(copied_);
    come_up_on_copy();
    wait_until_dropped();
    EXPECT_TRUE(engine().restores().empty());
    EXPECT_TRUE(overlays().empty());
    expect_sound("pgtest1", 0, 1);
  }
  EXPECT_EQ(engine().delete_backup(job, false).deleted.size(), 1u) << "nothing holds it any more";
}

TEST_F(Restores, OneThatIsReadyOutlivesARestart) {
  register_vm("pgtest1", 1);
  const std::string job = back_up("pgtest1", BackupType::full, "one", 1).job.id;
  const std::string id = make(job).restore.id;
  restart();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(engine().restore(id).restore.state, RestoreState::ready);
  EXPECT_EQ(overlays().size(), 1u);
}

TEST_F(Restores, AnOverlayThatCannotBeMadeLeavesNothing) {
  register_vm("pgtest1", 2);
  const std::string job = back_up("pgtest1", BackupType::full, "one", 1).job.id;
  const std::string image =
      engine().chain({.vm_name = "pgtest1", .disk_id = 1}).points[0].point.image_path;
  fs::rename(image, image + ".away");
  EXPECT_THROW(make(job), std::exception);
  EXPECT_TRUE(engine().restores().empty());
  EXPECT_TRUE(overlays().empty());
  fs::rename(image + ".away", image);
  EXPECT_EQ(make(job).disks.size(), 2u);
}

TEST_F(Restores, ADeletionBesideOneThatIsMadeComesBeforeItOrIsRefused) {
  register_vm("pgtest1", 1);
  for (int round = 0; round < 20; ++round) {
    const std::string job = back_up("pgtest1", BackupType::full, "one", round + 1).job.id;
    std::string refused;
    std::thread deletion(
        [&] { refused = refusal_of([&] { engine().delete_backup(job, false); }); });
    const std::string not_made = refusal_of([&] { make(job); });
    deletion.join();
    if (not_made.empty()) {
      EXPECT_EQ(refused, "backup_is_in_use");
      EXPECT_EQ(overlays().size(), 1u);
      engine().drop_restore(engine().restores().at(0).restore.id);
    } else {
      EXPECT_EQ(refused, "");
      EXPECT_EQ(not_made, "backup_not_found");
    }
    EXPECT_TRUE(overlays().empty());
    if (refused != "") engine().delete_backup(job, false);
  }
}

TEST_F(Restores, TheNameIsASecretOfTheRestore) {
  register_vm("pgtest1", 1);
  const std::string job = back_up("pgtest1", BackupType::full, "one", 1).job.id;
  const RestoreView one = make(job), two = make(job);
  EXPECT_NE(one.restore.disks[0].export_name, two.restore.disks[0].export_name);
  EXPECT_EQ(one.restore.disks[0].export_name, one.restore.id + "/disk-0");
  EXPECT_EQ(make(job, RestoreMode::read_only).restore.disks[0].export_name,
            "pgtest1/disk-0@" + job);
  EXPECT_EQ(engine().restores().size(), 3u);
}

}  // namespace
}  // namespace engine_test
