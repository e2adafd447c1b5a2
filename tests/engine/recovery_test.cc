// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/killed_engine.h"

/// Every point at which the process may be killed: a copy of the directory is taken there, and a
/// second engine recovers on the copy. docs/jobs.md, "Recovery after a crash".
namespace engine_test {
namespace {

using Recovery = KilledEngine;

TEST_F(Recovery, AKillBeforeTheDecisionFailsTheJobAndLeavesNothingOfIt) {
  for (const std::string step :
       {"image", "export", "targets", "node call", "running", "sealing", "sealed", "decide"}) {
    SCOPED_TRACE(step);
    restart();
    const std::string vm = "vm-" + std::string(1, step[0]) + std::to_string(step.size());
    register_vm(vm);
    const BackupView full = back_up(vm, BackupType::full, "one", 1);
    const auto files_before = repository_files();
    copy_at(step, 1);
    const BackupView killed = back_up(vm, BackupType::incremental, "two", 2);
    ASSERT_TRUE(copied_);
    come_up_on_copy();
    EXPECT_EQ(state_of(killed.job.id), "failed");
    EXPECT_EQ(engine().backup(killed.job.id).job.error_message, "server restarted during backup");
    EXPECT_EQ(state_of(full.job.id), "completed");
    EXPECT_EQ(repository_files(), files_before);
    expect_nothing_left();
    expect_sound(vm, 0, 1);
    back_up(vm, BackupType::incremental, "three", 3);
    expect_sound(vm, 0, 2);
    expect_sound(vm, 1, 2);
  }
}

TEST_F(Recovery, AKillBetweenTheStepsOfPublishIsRolledForwardOnEveryDisk) {
  const std::vector<std::pair<std::string, int>> steps = {
      {"decided", 1},    {"header", 1},  {"sidecar", 1},  {"header", 2},
      {"sidecar", 2},    {"renamed", 1}, {"renamed", 2},  {"chain file", 1},
      {"chain file", 2}, {"publish", 1}, {"published", 1}};
  int number = 0;
  for (const auto& [step, occurrence] : steps) {
    SCOPED_TRACE(step + " " + std::to_string(occurrence));
    restart();
    const std::string vm = "vm" + std::to_string(++number);
    register_vm(vm);
    back_up(vm, BackupType::full, "one", 1);
    copy_at(step, occurrence);
    const BackupView killed = back_up(vm, BackupType::incremental, "two", 2);
    ASSERT_TRUE(copied_);
    const auto files_after = repository_files();
    come_up_on_copy();
    EXPECT_EQ(state_of(killed.job.id), "completed");
    EXPECT_EQ(repository_files(), files_after);
    expect_nothing_left();
    expect_sound(vm, 0, 2);
    expect_sound(vm, 1, 2);
    EXPECT_EQ(complete(killed, 1, change_id(1, 2)).job_state, JobState::completed);
    const std::string link = temp.file("repository/" + vm + "-disk-2000/latest.qcow2");
    EXPECT_NE(fs::read_symlink(link).string().find(killed.job.disks[0].image_id),
              std::string::npos);
    // The manifest's hash in the header fits the sidecar: a next incremental accepts the parent.
    back_up(vm, BackupType::incremental, "three", 3);
    expect_sound(vm, 1, 3);
  }
}

TEST_F(Recovery, AFailureBeforeTheDecisionFailsTheJobAndPublishesNoDisk) {
  register_vm("pgtest1");
  back_up("pgtest1", BackupType::full, "one", 1);
  const auto files_before = repository_files();
  for (const std::string step : {"sealing", "sealed", "decide"}) {
    SCOPED_TRACE(step);
    const BackupView backup = start("pgtest1", BackupType::incremental);
    Writer first(*hub, backup.job.disks[0].export_name);
    Writer second(*hub, backup.job.disks[1].export_name);
    ASSERT_TRUE(first.connect());
    ASSERT_TRUE(second.connect());
    complete(backup, 0, change_id(0, 2));
    hub->reached = [&](std::string_view reached) {
      if (reached == step) throw std::system_error(EIO, std::generic_category(), "injected");
    };
    EXPECT_EQ(refusal_of([&] { complete(backup, 1, change_id(1, 2)); }), "seal_failed");
    hub->reached = [](std::string_view) {};
    EXPECT_EQ(state_of(backup.job.id), "failed");
    EXPECT_EQ(repository_files(), files_before);
    EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 1u);
    EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, change_id(0, 1));
    expect_nothing_left();
  }
  back_up("pgtest1", BackupType::incremental, "two", 2);
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 2u);
}

TEST_F(Recovery, AKillInTheMiddleOfADeletionIsFinished) {
  for (const auto& [step, occurrence] : std::vector<std::pair<std::string, int>>{
           {"marked", 1}, {"unlinked", 1}, {"unlinked", 3}, {"erase", 1}, {"erase", 2}}) {
    SCOPED_TRACE(step + std::to_string(occurrence));
    restart();
    const std::string vm = "vm-" + step + std::to_string(occurrence);
    register_vm(vm);
    const BackupView full = back_up(vm, BackupType::full, "one", 1);
    back_up(vm, BackupType::incremental, "two", 2);
    copy_at(step, occurrence);
    engine().delete_backup(full.job.id, true);
    ASSERT_TRUE(copied_);
    come_up_on_copy();
    EXPECT_EQ(refusal_of([&] { engine().backup(full.job.id); }), "backup_not_found");
    EXPECT_EQ(engine().chain({.vm_name = vm}).points.size(), 0u);
    for (const std::string& path : repository_files()) {
      EXPECT_EQ(path.find(vm), std::string::npos) << path;
    }
  }
}

TEST_F(Recovery, WhatAKilledJobKeptIsLookedAtWhenItsRepositoryIsBack) {
  register_vm("pgtest1", 1);
  for (const bool is_whole : {true, false}) {
    SCOPED_TRACE(is_whole);
    copy_at("running", 1);
    const BackupView killed = engine().start_backup({.vm_name = "pgtest1",
                                                     .backup_type = BackupType::full,
                                                     .repository_id = "1",
                                                     .keep_partial = true});
    ASSERT_TRUE(copied_);
    put_copy_in_place();
    const std::string partial = killed.job.disks[0].image_path + ".partial";
    if (!is_whole) fs::remove(killed.job.disks[0].image_path + ".arrived");
    fs::rename(temp.file("repository"), temp.file("away"));
    fs::create_directory(temp.file("repository"));
    restart([](EngineOptions& options) {
      options.repository_interval = std::chrono::milliseconds(20);
    });
    ASSERT_NE(engine().repository("1").unavailable_cause, "");
    EXPECT_TRUE(engine().backup(killed.job.id).job.kept) << "nobody could look";
    fs::remove(temp.file("repository"));
    fs::rename(temp.file("away"), temp.file("repository"));
    ASSERT_TRUE(wait_until([&] { return engine().repository("1").unavailable_cause.empty(); }));
    EXPECT_EQ(engine().backup(killed.job.id).job.kept, is_whole);
    EXPECT_EQ(fs::exists(partial), is_whole);
    restart();
  }
}

TEST_F(Recovery, StraysAreRemovedAndImagesUnknownToTheCatalogueAreLeft) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const std::string image = engine().backup(full.job.id).job.disks[0].image_path;
  const std::string directory = fs::path(image).parent_path();
  hub.reset();
  const auto make = [](const std::string& path) { std::ofstream(path) << "x"; };
  make(directory + "/backup-x-disk0-20200101-000000.qcow2.partial");
  make(directory + "/chain.json.new");
  make(directory + "/chain.json.0123456789abcdef.new");
  make(directory + "/backup-old-disk0-20200101-000000.qcow2");
  make(directory + "/backup-old-disk0-20200101-000000.qcow2.json");
  make(directory + "/notes.txt");
  make(directory + "/notes.new");
  make(fs::path(directory).parent_path().string() + "/notes.new");
  fs::create_directory(fs::path(directory).parent_path() / "x.0123456789abcdef.new");
  fs::create_symlink("nothing", temp.file("repository/my-disk-notes.new"));
  fs::create_symlink("ctx-gone/disk-0/gone.qcow2", temp.file("repository/gone-disk-1.qcow2"));
  fs::create_symlink("nothing", temp.file("repository/.varve-test-0123456789abcdef.link"));
  restart();
  EXPECT_FALSE(fs::exists(directory + "/backup-x-disk0-20200101-000000.qcow2.partial"));
  EXPECT_FALSE(fs::exists(directory + "/chain.json.new"));
  EXPECT_FALSE(fs::exists(directory + "/chain.json.0123456789abcdef.new"));
  EXPECT_TRUE(fs::is_symlink(temp.file("repository/gone-disk-1.qcow2")));
  EXPECT_FALSE(fs::is_symlink(temp.file("repository/.varve-test-0123456789abcdef.link")));
  EXPECT_TRUE(fs::exists(directory + "/backup-old-disk0-20200101-000000.qcow2"));
  EXPECT_TRUE(fs::exists(directory + "/backup-old-disk0-20200101-000000.qcow2.json"));
  EXPECT_TRUE(fs::exists(directory + "/notes.txt"));
  EXPECT_TRUE(fs::exists(directory + "/notes.new"));
  EXPECT_TRUE(fs::exists(fs::path(directory).parent_path() / "notes.new"));
  EXPECT_TRUE(fs::exists(fs::path(directory).parent_path() / "x.0123456789abcdef.new"));
  EXPECT_TRUE(fs::is_symlink(temp.file("repository/my-disk-notes.new")));
  EXPECT_TRUE(fs::exists(image));
}

}  // namespace
}  // namespace engine_test
