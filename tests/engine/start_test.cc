// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "engine/catalogue/db.h"
#include "tests/engine/engine_fixture.h"

/// What a start refuses and what it rolls back: docs/jobs.md, "Start".
namespace engine_test {
namespace {

using Start = EngineTest;

TEST_F(Start, RefusesUnknownVmsRepositoriesAndIncrementalsWithoutParents) {
  EXPECT_EQ(refusal_of([&] { start("nobody"); }), "vm_not_found");
  register_vm("pgtest1");
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::full, "9"); }), "repository_not_found");
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "no_parent");
  EXPECT_TRUE(engine().list_backups({}).backups.empty());
}

TEST_F(Start, RefusesAVmWhoseCredentialsAreMissingOrUnknown) {
  register_vm("pgtest1");
  PutVmContext request{.vm_name = "bare", .vm_path = "/DC1/vm/bare", .vcenter_host = "vc1"};
  request.disks.push_back({.disk_id = "disk-2000", .capacity_bytes = kDiskBytes});
  engine().put_vm(request);
  EXPECT_EQ(refusal_of([&] { start("bare"); }), "no_credentials");
  request.credentials.kind = CredentialsChange::Kind::reference;
  request.credentials.reference = "vc9";
  engine().put_vm(request);
  EXPECT_EQ(refusal_of([&] { start("bare"); }), "credentials_error");
  request.credentials = {
      .kind = CredentialsChange::Kind::inline_secret, .username = "u", .password = "p"};
  engine().put_vm(request);
  engine().cancel(start("bare").job.id, "");
  EXPECT_EQ(hub->node.calls.back().vcenter_password, "p");
}

TEST_F(Start, CallsNoNodeForAnExternalClient) {
  PutVmContext request{.vm_name = "anywhere"};
  request.disks.push_back({.disk_id = "disk-0", .capacity_bytes = kDiskBytes});
  engine().put_vm(request);
  EXPECT_EQ(refusal_of([&] { start("anywhere"); }), "no_vcenter");
  const StartBackup asked{
      .vm_name = "anywhere", .repository_id = "1", .client = BackupClient::external};
  const BackupView job = engine().start_backup(asked);
  EXPECT_EQ(job.job.client, BackupClient::external);
  EXPECT_EQ(job.job.state, JobState::running);
  EXPECT_TRUE(job.job.nbd_targets.starts_with("0:nbd://")) << job.job.nbd_targets;
  EXPECT_TRUE(hub->node.calls.empty());
  engine().cancel(job.job.id, "");
  EXPECT_EQ(engine().backup(job.job.id).job.client, BackupClient::external);
}

TEST_F(Start, RefusesMoreDisksThanPortsAndLeavesNothing) {
  restart([](EngineOptions& options) { options.ports = free_ports(2); });
  register_vm("three", 3);
  EXPECT_EQ(refusal_of([&] { start("three"); }), "no_ports");
  EXPECT_TRUE(engine().list_backups({}).backups.empty());
  expect_nothing_left();
}

TEST_F(Start, TakesTheLowestFreePortAndSkipsThoseOfOtherPrograms) {
  const PortNumbers range = free_ports(4);
  std::unique_ptr<io::Listener> other;
  restart([&](EngineOptions& options) { options.ports = range; });
  io::RingThread elsewhere("elsewhere");
  io::call_and_wait(elsewhere.ring(), [&]() -> io::Task<void> {
    other = io::Listener::tcp(elsewhere.ring(), {"127.0.0.1", range.first});
    co_return;
  });
  register_vm("pgtest1", 2);
  const BackupView full = start("pgtest1");
  EXPECT_EQ(full.job.disks[0].port, range.first + 1);
  EXPECT_EQ(full.job.disks[1].port, range.first + 2);
  EXPECT_EQ(engine().ports().blocked, std::vector<uint16_t>{range.first});
  EXPECT_EQ(engine().ports().allocations.size(), 2u);
  engine().cancel(full.job.id, "");
  io::call_and_wait(elsewhere.ring(), [&]() -> io::Task<void> {
    other.reset();
    co_return;
  });
  const BackupView next = start("pgtest1");
  EXPECT_EQ(next.job.disks[0].port, range.first);
  EXPECT_TRUE(engine().ports().blocked.empty());
  engine().cancel(next.job.id, "");
}

TEST_F(Start, WritesTheMainPortIntoTheTargetsInNamesMode) {
  restart([](EngineOptions& options) {
    options.targets = TargetsMode::names;
    options.nbd_port = 10809;
  });
  register_vm("pgtest1", 1);
  const BackupView full = start("pgtest1");
  EXPECT_EQ(full.job.disks[0].port, 10809);
  EXPECT_EQ(full.job.nbd_targets, "2000:nbd://127.0.0.1:10809/" + full.job.disks[0].export_name);
  EXPECT_TRUE(engine().ports().allocations.empty());
  EXPECT_TRUE(Writer(*hub, full.job.disks[0].export_name).connect());
  engine().cancel(full.job.id, "");
}

TEST_F(Start, TroubleWithTheNodeRollsEverythingBackAndKeepsTheJobAsFailed) {
  register_vm("pgtest1");
  hub->node.answer = {.outcome = NodeAnswer::Outcome::refused, .status = 400, .text = "no"};
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "node_refused");
  hub->node.answer = {.outcome = NodeAnswer::Outcome::unreachable, .text = "timed out"};
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "node_unreachable");
  const BackupList jobs = engine().list_backups({});
  ASSERT_EQ(jobs.backups.size(), 2u);
  for (const BackupView& view : jobs.backups) {
    EXPECT_EQ(view.job.state, JobState::failed);
    EXPECT_NE(view.job.error_message, "");
    EXPECT_EQ(view.job.nbd_targets, "");
  }
  expect_nothing_left();
  EXPECT_TRUE(repository_files().empty());
}

TEST_F(Start, AFailureAtAnyStepRollsEverythingBack) {
  register_vm("pgtest1");
  for (const std::string step : {"insert", "image", "export", "targets", "node call", "running"}) {
    for (int occurrence = 1; occurrence <= 2; ++occurrence) {
      int seen = 0;
      hub->reached = [&](std::string_view reached) {
        if (reached == step && ++seen == occurrence) throw std::runtime_error("injected");
      };
      const bool failed = refusal_of([&] { start("pgtest1"); }) != "";
      hub->reached = [](std::string_view) {};
      if (!failed) {
        EXPECT_LT(seen, occurrence) << step;
        engine().cancel(engine().list_backups({}).backups[0].job.id, "");
      }
      expect_nothing_left();
      EXPECT_TRUE(repository_files().empty()) << step << " " << occurrence;
      for (const BackupView& view : engine().list_backups({}).backups) {
        EXPECT_FALSE(is_active(view.job.state)) << step << " " << occurrence;
      }
    }
  }
  back_up("pgtest1", BackupType::full, "works", 1);
}

TEST_F(Start, ADamagedMissingOrTouchedParentIsRefused) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "one", 1);
  const std::string path = engine().backup(full.job.id).job.disks[0].image_path;
  const std::string copy = temp.file("copy");
  std::filesystem::copy_file(path, copy);

  std::filesystem::resize_file(path, std::filesystem::file_size(path) + 65536);
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "prepare_failed");
  std::filesystem::remove(path);
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "prepare_failed");
  std::filesystem::copy_file(copy, path);
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).write("NOPE", 4);
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "prepare_failed");
  std::filesystem::copy_file(copy, path, std::filesystem::copy_options::overwrite_existing);
  const std::string sidecar = path + ".json";
  std::ofstream(sidecar, std::ios::app) << " ";
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "prepare_failed");
  expect_nothing_left();
}

TEST_F(Start, FailedImagesGoIntoQuarantineWhenThatIsSet) {
  restart([](EngineOptions& options) { options.failed_images = FailedImages::quarantine; });
  register_vm("pgtest1", 1);
  const BackupView full = start("pgtest1");
  engine().cancel(full.job.id, "");
  const std::string kept = temp.file("repository/.quarantine/" + full.job.id + "/" +
                                     full.job.disks[0].image_id + ".qcow2.partial");
  EXPECT_TRUE(std::filesystem::exists(kept)) << kept;
}

TEST_F(Start, StoppingFailsRunningJobsAndRefusesNewOnes) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  Writer(*hub, full.job.disks[0].export_name).connect();
  hub->impl->stop();
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "shutting_down");
  restart();
  EXPECT_EQ(engine().backup(full.job.id).job.error_message, "server shut down during backup");
  EXPECT_TRUE(repository_files().empty());
}

TEST_F(Start, ASecondEngineOnTheSameCatalogueIsRefusedWithThePid) {
  Hub second(temp.path());
  try {
    second.start();
    FAIL() << "started twice";
  } catch (const std::exception& failure) {
    EXPECT_NE(std::string(failure.what()).find("pid " + std::to_string(::getpid())),
              std::string::npos)
        << failure.what();
  }
}

TEST_F(Start, AChainThatIsFullTakesAFullAndNoIncremental) {
  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "one", 1);
  back_up("pgtest1", BackupType::incremental, "two", 2);
  const auto place_newest = [&](uint32_t position) {
    hub.reset();
    Db(temp.file("catalogue.db"))
        .exec("UPDATE point SET position = " + std::to_string(position) + " WHERE position > 0");
    restart();
  };
  place_newest(198);
  const BackupView warned = start("pgtest1", BackupType::incremental);
  ASSERT_EQ(warned.job.warnings.size(), 1u);
  EXPECT_EQ(warned.job.warnings[0].code, WarningCode::long_chain);
  engine().cancel(warned.job.id, "");
  place_newest(254);
  engine().cancel(start("pgtest1", BackupType::incremental).job.id, "");
  place_newest(255);
  EXPECT_EQ(refusal_of([&] { start("pgtest1", BackupType::incremental); }), "chain_too_long");
  back_up("pgtest1", BackupType::full, "three", 3);
  back_up("pgtest1", BackupType::incremental, "four", 4);
}

/// An incremental whose writer says what its changes are against.
class Base : public EngineTest {
 protected:
  /// The code of the refusal; "" when the job started, which is cancelled again.
  std::string starting_with(const std::string& base) {
    return refusal_of([&] {
      const BackupView job = engine().start_backup({.vm_name = "pgtest1",
                                                    .backup_type = BackupType::incremental,
                                                    .repository_id = "1",
                                                    .base = base});
      engine().cancel(job.job.id, "");
    });
  }
};

TEST_F(Base, ThatIsTheParentIsTakenByBackupIdAndByChangeId) {
  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "first", 1);
  const BackupView second = back_up("pgtest1", BackupType::incremental, "second", 2);
  EXPECT_EQ(starting_with(second.job.id), "");
  EXPECT_EQ(starting_with(change_id(0, 2)), "");
  EXPECT_EQ(starting_with(""), "");
}

TEST_F(Base, ThatIsNotTheParentIsRefusedAndNothingIsLeft) {
  register_vm("pgtest1", 1);
  const BackupView first = back_up("pgtest1", BackupType::full, "first", 1);
  const BackupView second = back_up("pgtest1", BackupType::incremental, "second", 2);
  const uint64_t jobs = engine().list_backups({}).total;
  for (const std::string& base :
       {first.job.id, change_id(0, 1), change_id(0, 3), std::string("x")}) {
    EXPECT_EQ(starting_with(base), "base_mismatch") << base;
  }
  try {
    engine().start_backup({.vm_name = "pgtest1",
                           .backup_type = BackupType::incremental,
                           .repository_id = "1",
                           .base = first.job.id});
    FAIL();
  } catch (const Refusal& refusal) {
    EXPECT_EQ(refusal.kind, RefusalKind::conflict);
    EXPECT_EQ(refusal.details, "disk 0: the parent is backup '" + second.job.id +
                                   "' with change id '" + change_id(0, 2) + "', not '" +
                                   first.job.id + "'");
  }
  EXPECT_EQ(engine().list_backups({}).total, jobs);
  expect_nothing_left();
}

TEST_F(Base, IsTheParentOfEveryDisk) {
  register_vm("pgtest1", 2);
  const BackupView full = back_up("pgtest1", BackupType::full, "first", 1);
  EXPECT_EQ(starting_with(full.job.id), "");
  EXPECT_EQ(starting_with(change_id(0, 1)), "base_mismatch") << "disk 1 has another change id";
  register_vm("pgtest1", 3);
  EXPECT_EQ(starting_with(full.job.id), "") << "a new disk is not in any base";
}

TEST_F(Base, DoesNotHoldForADiskThatShrank) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "first", 1);
  register_vm("pgtest1", 1, kDiskBytes / 2);
  EXPECT_EQ(starting_with(full.job.id), "base_mismatch") << "its image has no parent";
  EXPECT_EQ(starting_with(""), "");
}

}  // namespace
}  // namespace engine_test
