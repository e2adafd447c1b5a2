// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "tests/engine/engine_fixture.h"

/// docs/jobs.md, "Deletion".
namespace engine_test {
namespace {

using Deletion = EngineTest;

TEST_F(Deletion, RefusesUnknownRunningAndNeededBackups) {
  register_vm("pgtest1", 1);
  EXPECT_EQ(refusal_of([&] { engine().delete_backup("backup-nobody-1", false); }),
            "backup_not_found");
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView running = start("pgtest1", BackupType::incremental);
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(running.job.id, false); }),
            "backup_is_running");
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }),
            "backup_has_dependents");
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, true); }), "backup_is_running");
  fill(running, "two", 2);
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }),
            "backup_has_dependents");
}

TEST_F(Deletion, RemovesRowsAndFilesOfTheNewestAndTheNextStartsFromItsParent) {
  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "one", 1);
  const auto files_before = repository_files();
  const BackupView newest = back_up("pgtest1", BackupType::incremental, "two", 2);
  const DeletedBackup deleted = engine().delete_backup(newest.job.id, false);
  EXPECT_EQ(deleted.deleted, std::vector<std::string>{newest.job.id});
  EXPECT_GT(deleted.freed_bytes, 65536u);
  EXPECT_EQ(repository_files(), files_before);
  EXPECT_EQ(refusal_of([&] { engine().backup(newest.job.id); }), "backup_not_found");
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, change_id(0, 1));
  back_up("pgtest1", BackupType::incremental, "two again", 3);
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 2u);
}

TEST_F(Deletion, CascadeDeletesNewestFirst) {
  register_vm("pgtest1", 2);
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView second = back_up("pgtest1", BackupType::incremental, "two", 2);
  const BackupView third = back_up("pgtest1", BackupType::incremental, "three", 3);
  const DeletedBackup deleted = engine().delete_backup(full.job.id, true);
  EXPECT_EQ(deleted.deleted, (std::vector<std::string>{third.job.id, second.job.id, full.job.id}));
  EXPECT_TRUE(repository_files().empty());
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, "");
}

TEST_F(Deletion, AFailedJobLosesItsRow) {
  register_vm("pgtest1", 1);
  hub->node.answer = {.outcome = NodeAnswer::Outcome::refused, .status = 500};
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "node_refused");
  const std::string id = engine().list_backups({}).backups.at(0).job.id;
  engine().delete_backup(id, false);
  EXPECT_TRUE(engine().list_backups({}).backups.empty());
}

TEST_F(Deletion, ImmutableRepositoriesAndYoungBackupsAreKeptEvenWithCascade) {
  NewRepository request{.id = "worm",
                        .name = "worm",
                        .config_json = R"({"path":")" + temp.file("worm") + R"("})",
                        .directory = temp.file("worm"),
                        .is_immutable = true};
  engine().create_repository(request);
  request.id = request.name = "kept";
  request.directory = temp.file("kept");
  request.is_immutable = false;
  request.min_retention_days = 7;
  engine().create_repository(request);
  register_vm("pgtest1", 1);
  for (const std::string repository : {"worm", "kept"}) {
    const BackupView full = start("pgtest1", BackupType::full, repository);
    fill(full, "one", 1);
    EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, true); }),
              "backup_is_immutable");
    EXPECT_EQ(refusal_of([&] { engine().delete_repository(repository); }),
              "cannot_delete_repository_with_existing_backups");
  }
}

TEST_F(Deletion, ABackupIsKeptToTheSecondThatItsRepositorySays) {
  engine().create_repository({.id = "kept",
                              .name = "kept",
                              .config_json = R"({"path":")" + temp.file("kept") + R"("})",
                              .directory = temp.file("kept"),
                              .min_retention_days = 7});
  register_vm("pgtest1", 1);
  const BackupView full = start("pgtest1", BackupType::full, "kept");
  fill(full, "one", 1);
  const Time until = engine().backup(full.job.id).job.completed_at.value() + std::chrono::days(7);
  hub->clock->hold(until - std::chrono::seconds(1));
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, true); }), "backup_is_immutable");
  hub->clock->hold(until);
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, true); }), "");
  EXPECT_FALSE(fs::exists(full.job.disks[0].image_path));
}

TEST_F(Deletion, APointThatAnotherProgramHasOpenStaysWithAllThatWouldGoAlong) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const BackupView newest = back_up("pgtest1", BackupType::incremental, "two", 2);
  const auto files_before = repository_files();
  const std::string image = full.job.disks[0].image_path;
  // The reader's lock of qemu, on the full alone: a cascade would remove the incremental first.
  const int fd = ::open(image.c_str(), O_RDONLY);
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
  ASSERT_EQ(::fcntl(fd, F_OFD_SETLK, &lock), 0);
  std::string details;
  try {
    engine().delete_backup(full.job.id, true);
  } catch (const Refusal& refusal) {
    EXPECT_EQ(refusal.code, "backup_is_in_use");
    details = refusal.details;
  }
  EXPECT_NE(details.find("in use by another process (lock byte 201)"), std::string::npos)
      << details;
  EXPECT_EQ(repository_files(), files_before);
  EXPECT_EQ(state_of(newest.job.id), "completed");
  ::close(fd);
  EXPECT_EQ(engine().delete_backup(full.job.id, true).deleted.size(), 2u);
}

TEST_F(Deletion, APointThatQemuServesStays) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const std::string socket = temp.file("socket");
  const std::string pid_file = temp.file("pid");
  const auto served =
      support::run_command("qemu-nbd --fork --pid-file=" + pid_file + " -r -f qcow2 -k " + socket +
                           " " + full.job.disks[0].image_path);
  ASSERT_TRUE(served.ok()) << served.output;
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }), "backup_is_in_use");
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, SIGTERM), 0);
  EXPECT_TRUE(wait_until(
      [&] { return refusal_of([&] { engine().delete_backup(full.job.id, false); }).empty(); }));
}

TEST_F(Deletion, AClientThatStillHoldsItsConnectionDoesNotKeepABackup) {
  register_vm("pgtest1", 1);
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  complete(full, 0, change_id(0, 1));
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(full.job.id, false); }), "");
}

}  // namespace
}  // namespace engine_test
