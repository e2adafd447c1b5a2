// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <set>
#include <thread>

#include "engine/catalogue/db.h"
#include "engine/values/layout.h"
#include "tests/engine/engine_fixture.h"

/// Repositories that are not mounted, not theirs or broken: nothing is written into the wrong
/// directory, everything else runs, and they come back by themselves.
namespace engine_test {
namespace {

namespace fs = std::filesystem;

class RepositoryThatComesAndGoes : public EngineTest {
 protected:
  void SetUp() override {
    come_up();
    register_vm("pgtest1", 1);
  }
  void come_up() {
    restart([](EngineOptions& options) {
      options.repository_interval = std::chrono::milliseconds(20);
    });
  }

  std::string path() const { return temp.file("repository"); }
  std::string marker() const { return path() + "/" + std::string(kMarkerName); }
  std::string cause(const std::string& id = "1") {
    return engine().repository(id).unavailable_cause;
  }
  bool becomes_available(const std::string& id = "1") {
    return wait_until([&] { return cause(id).empty(); });
  }
  void expect_cause(const std::string& words, const std::string& id = "1") {
    // The look that notices may come between the steps of a move; the next one says it.
    EXPECT_TRUE(wait_until([&] { return cause(id).find(words) != std::string::npos; }))
        << cause(id);
    EXPECT_EQ(engine().health().unavailable_repositories.count(id), 1u);
    EXPECT_TRUE(engine().health().ready()) << "the others can be used";
  }

  /// The file system goes: its empty mount point is left.
  void unmount() {
    fs::rename(path(), temp.file("away"));
    fs::create_directory(path());
  }
  void mount() {
    fs::remove_all(path());
    fs::rename(temp.file("away"), path());
  }

  /// The same with the directory of one disk.
  void take_away(const std::string& directory) {
    fs::rename(directory, temp.file("disk-away"));
    fs::create_directory(directory);
  }
  void bring_back(const std::string& directory) {
    fs::remove_all(directory);
    fs::rename(temp.file("disk-away"), directory);
  }
  static std::string directory_of(const BackupView& backup) {
    return fs::path(backup.job.disks[0].image_path).parent_path();
  }

  std::string add_repository(const std::string& id) {
    const std::string directory = temp.file("repository-" + id);
    engine().create_repository({.id = id, .name = id, .config_json = "{}", .directory = directory});
    return directory;
  }
  Verification verify_all() {
    const std::string id = engine().verify({}).id;
    wait_until([&] { return engine().verification(id).state != VerificationState::running; });
    return engine().verification(id);
  }
  void in_catalogue(const std::string& sql) { Db(temp.file("catalogue.db")).exec(sql); }
};

TEST_F(RepositoryThatComesAndGoes, AnEmptyMountPointIsNotTakenForIt) {
  back_up("pgtest1", BackupType::full, "one", 1);
  hub.reset();
  unmount();
  come_up();
  expect_cause("not mounted");
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "repository_unavailable");
  EXPECT_EQ(refusal_of([&] { engine().repository_storage("1"); }), "repository_unavailable");
  EXPECT_TRUE(fs::is_empty(path())) << "nothing is written there, not even a lock";
  mount();
  ASSERT_TRUE(becomes_available());
  back_up("pgtest1", BackupType::incremental, "two", 2);
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 2u);
}

TEST_F(RepositoryThatComesAndGoes, ItIsMissedWhileVarveRuns) {
  back_up("pgtest1", BackupType::full, "one", 1);
  unmount();
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }),
            "repository_unavailable");
  expect_cause("not mounted");
  mount();
  ASSERT_TRUE(becomes_available());
  back_up("pgtest1", BackupType::incremental, "two", 2);
}

TEST_F(RepositoryThatComesAndGoes, ADeletionWithoutItIsRefusedAndForgetsNothing) {
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  unmount();
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }),
            "repository_unavailable");
  mount();
  ASSERT_TRUE(becomes_available());
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 1u);
  EXPECT_TRUE(fs::exists(full.job.disks[0].image_path));
  engine().delete_backup(full.job.id, false);
  EXPECT_FALSE(fs::exists(full.job.disks[0].image_path));
}

TEST_F(RepositoryThatComesAndGoes, APublishWhoseImageGoesBeforeTheRenameWaitsForIt) {
  back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView next = start("pgtest1", BackupType::incremental);
  std::atomic<int> sidecars = 0;
  hub->reached = [&](std::string_view step) {
    if (step == "sidecar" && sidecars++ == 0) take_away(directory_of(next));
  };
  EXPECT_EQ(refusal_of([&] { fill(next, "two", 2); }), "being_published");
  EXPECT_EQ(state_of(next.job.id), "finalizing");
  bring_back(directory_of(next));
  ASSERT_TRUE(wait_until([&] { return state_of(next.job.id) == "completed"; }));
  EXPECT_TRUE(fs::exists(next.job.disks[0].image_path));
  back_up("pgtest1", BackupType::incremental, "three", 3);
  hub.reset();  // before what its hook refers to
}

TEST_F(RepositoryThatComesAndGoes, ADecidedImageThatSeemsGoneInAnotherDirectoryIsNotGivenUp) {
  back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView next = start("pgtest1", BackupType::incremental);
  // The file system goes, and below its mount point lie directories of the same names.
  std::atomic<int> decisions = 0;
  hub->reached = [&](std::string_view step) {
    if (step != "decided" || decisions++ > 0) return;
    unmount();
    fs::create_directories(directory_of(next));
  };
  EXPECT_EQ(refusal_of([&] { fill(next, "two", 2); }), "being_published");
  EXPECT_EQ(state_of(next.job.id), "finalizing");
  mount();
  ASSERT_TRUE(wait_until([&] { return state_of(next.job.id) == "completed"; }));
  EXPECT_TRUE(fs::exists(next.job.disks[0].image_path));
  hub.reset();  // before what its hook refers to
}

TEST_F(RepositoryThatComesAndGoes, WhatIsNotMountedIsNotDamagedAndTheOthersAreProven) {
  add_repository("2");
  back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView there = start("pgtest1", BackupType::full, "2");
  fill(there, "two", 2);
  unmount();
  const Verification task = verify_all();
  EXPECT_EQ(task.state, VerificationState::failed);
  EXPECT_TRUE(task.error.starts_with("1 image could not be read: ")) << task.error;
  EXPECT_NE(task.error.find("not mounted"), std::string::npos) << task.error;
  EXPECT_TRUE(task.damaged_backups.empty());
  ASSERT_EQ(task.images.size(), 1u);
  EXPECT_EQ(task.images[0].job_id, there.job.id);
  EXPECT_EQ(task.images[0].result, VerificationResult::sound);
  mount();
}

TEST_F(RepositoryThatComesAndGoes, PointsOfItsFormerDirectoryAreNotDamagedWhileThatIsAway) {
  back_up("pgtest1", BackupType::full, "one", 1);
  hub.reset();
  const std::string old = path();
  restart([&](EngineOptions& options) { options.repository_path = temp.file("elsewhere"); });
  fs::rename(old, temp.file("away"));
  fs::create_directory(old);
  const Verification away = verify_all();
  EXPECT_TRUE(away.damaged_backups.empty());
  EXPECT_TRUE(away.error.starts_with("1 image could not be read: ")) << away.error;
  fs::remove(old);
  fs::rename(temp.file("away"), old);
  EXPECT_EQ(verify_all().state, VerificationState::completed);
}

TEST_F(RepositoryThatComesAndGoes, AMarkerThatWasRemovedIsMadeAgainBesideItsImages) {
  back_up("pgtest1", BackupType::full, "one", 1);
  fs::remove(marker());
  EXPECT_TRUE(wait_until([&] { return fs::exists(marker()) && cause().empty(); }));
  back_up("pgtest1", BackupType::incremental, "two", 2);
}

TEST_F(RepositoryThatComesAndGoes, ANewDiskInItsPlaceIsTakenWhenTheOperatorSaysSo) {
  back_up("pgtest1", BackupType::full, "one", 1);
  unmount();
  ASSERT_TRUE(wait_until([&] { return !cause().empty(); }));
  const std::string text = cause();
  const size_t begin = text.find("{\"id\"");
  ASSERT_NE(begin, std::string::npos) << text;
  std::ofstream(marker()) << text.substr(begin);
  ASSERT_TRUE(becomes_available());
  back_up("pgtest1", BackupType::full, "two", 2);
}

TEST_F(RepositoryThatComesAndGoes, ATestOfAnEmptyMountPointFailsAndWritesNothing) {
  unmount();
  const RepositoryTest test = engine().test_repository("1");
  EXPECT_FALSE(test.passed);
  EXPECT_NE(test.error_details.find("not mounted"), std::string::npos) << test.error_details;
  EXPECT_TRUE(fs::is_empty(path()));
}

TEST_F(RepositoryThatComesAndGoes, PointsOfItsFormerDirectoryAreNotForgottenWhileThatIsAway) {
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  hub.reset();
  const std::string old = path();
  restart([&](EngineOptions& options) { options.repository_path = temp.file("elsewhere"); });
  fs::rename(old, temp.file("away"));
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }),
            "repository_unavailable");
  fs::rename(temp.file("away"), old);
  engine().delete_backup(full.job.id, false);
  EXPECT_FALSE(fs::exists(full.job.disks[0].image_path));
}

TEST_F(RepositoryThatComesAndGoes, ADeletionWhoseFilesWereAwayForAMomentDeletesThem) {
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  std::atomic<int> unlinks = 0;
  hub->reached = [&](std::string_view step) {
    if (step == "marked") take_away(directory_of(full));
    if (step == "unlinked" && unlinks++ == 0) bring_back(directory_of(full));
  };
  EXPECT_THROW(engine().delete_backup(full.job.id, false), std::exception);
  EXPECT_TRUE(wait_until([&] { return repository_files().empty(); }));
  EXPECT_EQ(refusal_of([&] { engine().backup(full.job.id); }), "backup_not_found");
  hub.reset();  // before what its hook refers to
}

TEST_F(RepositoryThatComesAndGoes, ALinkThatOutlivedTheLastPointIsRemovedAtTheNextStart) {
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const std::string link = path() + "/pgtest1-disk-2000";
  ASSERT_TRUE(fs::is_symlink(link));
  const fs::path target = fs::read_symlink(link);
  engine().delete_backup(full.job.id, false);
  ASSERT_FALSE(fs::is_symlink(link));
  hub.reset();
  fs::create_symlink(target, link);
  come_up();
  EXPECT_TRUE(wait_until([&] { return !fs::is_symlink(link); }));
}

TEST_F(RepositoryThatComesAndGoes, TheDirectoryOfAnotherOneIsNotUsed) {
  back_up("pgtest1", BackupType::full, "one", 1);
  const std::string other = add_repository("2");
  hub.reset();
  fs::rename(path(), temp.file("away"));
  fs::rename(other, path());
  fs::rename(temp.file("away"), other);
  come_up();
  expect_cause("another repository", "1");
  expect_cause("another repository", "2");
}

TEST_F(RepositoryThatComesAndGoes, OneThatIsBrokenKeepsNothingElseFromRunning) {
  back_up("pgtest1", BackupType::full, "one", 1);
  add_repository("2");
  const BackupView running = start("pgtest1");
  hub.reset();
  for (const bool lock_is_broken : {false, true}) {
    fs::rename(path(), temp.file("away"));
    if (lock_is_broken) {
      fs::create_directory(path());
      fs::copy(temp.file("away") + "/" + std::string(kMarkerName), marker());
      fs::create_directory(path() + "/.varve.lock");
    } else {
      std::ofstream(path()) << "not a directory";
    }
    come_up();
    EXPECT_NE(cause(), "");
    EXPECT_EQ(state_of(running.job.id), "failed");
    const BackupView elsewhere = start("pgtest1", BackupType::full, "2");
    fill(elsewhere, "two", 2);
    EXPECT_EQ(state_of(elsewhere.job.id), "completed");
    mount();
    EXPECT_TRUE(becomes_available());
  }
  EXPECT_FALSE(fs::exists(running.job.disks[0].image_path + ".partial"));
  back_up("pgtest1", BackupType::incremental, "three", 3);
}

TEST_F(RepositoryThatComesAndGoes, AnInstallationFromBeforeMarkersGetsOne) {
  back_up("pgtest1", BackupType::full, "one", 1);
  hub.reset();
  fs::remove(marker());
  in_catalogue("UPDATE repository SET marker_id = ''");
  unmount();
  come_up();
  expect_cause("not one of the 1 images");
  EXPECT_TRUE(fs::is_empty(path()));
  mount();
  ASSERT_TRUE(becomes_available());
  EXPECT_TRUE(fs::exists(marker()));
  back_up("pgtest1", BackupType::incremental, "two", 2);
}

TEST_F(RepositoryThatComesAndGoes, AMarkerSurvivesRestartsAndIsReadableByAll) {
  std::ifstream first(marker());
  const std::string before((std::istreambuf_iterator<char>(first)), {});
  EXPECT_NE(before.find("\"version\":1"), std::string::npos);
  EXPECT_EQ(fs::status(marker()).permissions() & fs::perms::others_read, fs::perms::others_read);
  come_up();
  std::ifstream second(marker());
  EXPECT_EQ(std::string((std::istreambuf_iterator<char>(second)), {}), before);
}

TEST_F(RepositoryThatComesAndGoes, ADamagedMarkerMakesItUnavailable) {
  for (const char* const text : {"", "[]", "{\"version\":1}", "{\"id\":\"x\",\"version\":99}"}) {
    hub.reset();
    std::ofstream(marker()) << text;
    come_up();
    EXPECT_NE(cause().find(kMarkerName), std::string::npos) << cause();
  }
}

TEST_F(RepositoryThatComesAndGoes, ManyAreRegisteredAtTheSameTime) {
  constexpr int kRegistrations = 6;
  std::vector<std::thread> callers;
  for (int number = 0; number < kRegistrations; ++number) {
    callers.emplace_back([&, name = std::to_string(number)] {
      engine().create_repository({.name = name, .directory = temp.file("many-" + name)});
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::set<std::string> ids;
  for (const RepositoryView& one : engine().repositories({})) ids.insert(one.repository.id);
  EXPECT_EQ(ids.size(), kRegistrations + 1u);
  come_up();
  EXPECT_TRUE(engine().health().unavailable_repositories.empty());
}

TEST_F(RepositoryThatComesAndGoes, AFileThatCannotBeUnlinkedIsTriedAgainAndStopsNoStart) {
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const std::string image = full.job.disks[0].image_path;
  // A directory of the sidecar's name cannot be unlinked, whoever tries.
  const std::string sidecar = image + ".json";
  hub->reached = [&](std::string_view step) {
    if (step != "marked") return;
    fs::remove(sidecar);
    fs::create_directory(sidecar);
  };
  EXPECT_THROW(engine().delete_backup(full.job.id, false), std::exception);
  come_up();
  EXPECT_EQ(cause(), "");
  EXPECT_EQ(refusal_of([&] { engine().backup(full.job.id); }), "backup_not_found");
  EXPECT_TRUE(fs::exists(sidecar));
  fs::remove(sidecar);
  EXPECT_TRUE(wait_until([&] { return repository_files().empty(); }));
}

}  // namespace
}  // namespace engine_test
