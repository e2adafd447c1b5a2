// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/watch.h"

#include <thread>

#include "engine/catalogue/db.h"
#include "tests/engine/engine_fixture.h"

/// docs/jobs.md, "Timeouts", with durations short enough for a test.
namespace engine_test {
namespace {

using namespace std::chrono_literals;

class Watch : public EngineTest {
 protected:
  void with(JobTimeouts timeouts) {
    restart([&](EngineOptions& options) { options.timeouts = timeouts; });
    register_vm("pgtest1");
  }
  std::string cause_of(const std::string& backup_id) {
    EXPECT_TRUE(wait_until([&] { return state_of(backup_id) == "failed"; }));
    expect_nothing_left();
    EXPECT_TRUE(repository_files().empty());
    return engine().backup(backup_id).job.error_message;
  }
};

TEST_F(Watch, AClientThatNeverConnectsFailsTheJob) {
  with({.first_connect = 100ms});
  const BackupView full = start("pgtest1");
  EXPECT_EQ(cause_of(full.job.id), "no client connected within 100ms");
}

TEST_F(Watch, AClientThatDoesNotGoOnToTheNextDiskFailsTheJob) {
  with({.first_connect = 300ms});
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  complete(full, 0, change_id(0, 1));
  EXPECT_EQ(cause_of(full.job.id), "no client connected to the next disk within 300ms");
}

TEST_F(Watch, AClientThatVanishesFailsTheJobAfterTheGraceAndOneThatReturnsGoesOn) {
  with({.disconnect_grace = 400ms});
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(writer.connect());
    std::this_thread::sleep_for(50ms);
    writer.disconnect();
    std::this_thread::sleep_for(150ms);
  }
  EXPECT_EQ(state_of(full.job.id), "running");
  EXPECT_EQ(cause_of(full.job.id),
            "the client of disk 0 disconnected and did not come back within 400ms");
}

TEST_F(Watch, SilenceOnAllSidesIsAStall) {
  with({.stall = 200ms});
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  EXPECT_EQ(cause_of(full.job.id), "Job stalled - no NBD traffic or telemetry for 200ms");
}

TEST_F(Watch, TelemetryAloneKeepsAJobAliveOnlyUntilNbdIdle) {
  with({.stall = 200ms, .nbd_idle = 600ms});
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  const auto begun = std::chrono::steady_clock::now();
  while (state_of(full.job.id) == "running") {
    engine().record_telemetry(full.job.id, {.status = "running"});
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 500ms);
  EXPECT_EQ(cause_of(full.job.id),
            "Job hangs - no NBD traffic for 600ms although telemetry continues");
}

TEST_F(Watch, AJobThatIsTooOldIsFailed) {
  with({.max_duration = 200ms});
  const BackupView full = start("pgtest1");
  EXPECT_EQ(cause_of(full.job.id), "Job exceeded its maximum duration of 200ms");
}

TEST_F(Watch, AStorageFailureFailsTheJobWithItsFirstCause) {
  with({});
  const BackupView full = start("pgtest1");
  const auto exported = hub->exports.find(full.job.disks[1].export_name);
  hub->on_data([&]() -> io::Task<void> {
    exported->fail(
        std::make_exception_ptr(std::system_error(ENOSPC, std::generic_category(), "write disk1")));
    co_return;
  });
  EXPECT_EQ(cause_of(full.job.id), "disk 1: write disk1: No space left on device");
}

TEST_F(Watch, RunningJobsAreSampled) {
  restart([](EngineOptions& options) { options.sample_interval = 50ms; });
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  EXPECT_TRUE(
      wait_until([&] { return engine().telemetry_history(full.job.id, 10).samples.size() >= 3; }));
  EXPECT_EQ(engine().telemetry_history(full.job.id, 10).samples[0].source, SampleSource::server);
}

TEST_F(Watch, TheCatalogueIsTriedForThoseWhoAskForTheHealthAndNotForTheServiceManager) {
  restart([](EngineOptions& options) { options.catalogue_trial_interval = 20ms; });
  Db other(temp.file("catalogue.db"), DbAccess::read_only);
  // Changes with every commit of another connection.
  const auto version = [&] { return Stmt(other, "PRAGMA data_version").first<uint64_t>().value(); };
  const auto comes_to_rest = [&] {
    return wait_until([&] {
      const uint64_t before = version();
      for (int asked = 0; asked < 15; ++asked) {
        EXPECT_TRUE(hub->impl->unavailable_repositories().empty());
        std::this_thread::sleep_for(20ms);
      }
      return version() == before;
    });
  };
  EXPECT_TRUE(comes_to_rest()) << "it is written to although nobody has asked";
  const uint64_t before = version();
  EXPECT_TRUE(engine().health().ready());
  EXPECT_TRUE(wait_until([&] { return version() != before; }));
  EXPECT_TRUE(comes_to_rest());
}

TEST(DurationText, IsWrittenAsTheClientsLogsWriteIt) {
  EXPECT_EQ(duration_text(15min), "15m0s");
  EXPECT_EQ(duration_text(1h), "1h0m0s");
  EXPECT_EQ(duration_text(90s), "1m30s");
  EXPECT_EQ(duration_text(1500ms), "1.5s");
  EXPECT_EQ(duration_text(300ms), "300ms");
}

}  // namespace
}  // namespace engine_test
