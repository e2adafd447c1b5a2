#include "tests/engine/engine_fixture.h"

/// Deletion of backups: contract.md 2.9, 7.4.
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

}  // namespace
}  // namespace engine_test
