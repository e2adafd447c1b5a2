// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "tests/engine/engine_fixture.h"

/// A job from its start to its publication: docs/jobs.md.
namespace engine_test {
namespace {

using JobLife = EngineTest;

TEST_F(JobLife, AFullAndAnIncrementalBackupArePublishedAsAChainThatQemuReads) {
  register_vm("pgtest1");
  const BackupView full = back_up("pgtest1", BackupType::full, "first", 1);
  EXPECT_EQ(state_of(full.job.id), "completed");
  const BackupView incremental = back_up("pgtest1", BackupType::incremental, "second", 2);
  EXPECT_EQ(state_of(incremental.job.id), "completed");

  const ChainView chain = engine().chain({.vm_name = "pgtest1", .disk_id = 1});
  ASSERT_EQ(chain.points.size(), 2u);
  EXPECT_EQ(chain.points[1].point.parent_image_id, chain.points[0].point.image_id);
  for (const ChainPoint& point : chain.points) {
    const auto check = support::run_command("qemu-img check " + point.point.image_path);
    EXPECT_TRUE(check.ok()) << check.output;
  }
  const auto info =
      support::run_command("qemu-img info --backing-chain " + chain.points[1].point.image_path);
  EXPECT_NE(info.output.find("backing file: " + chain.points[0].point.image_id + ".qcow2"),
            std::string::npos)
      << info.output;
  EXPECT_NE(info.output.find("backing file format: qcow2"), std::string::npos);
  expect_nothing_left();
}

TEST_F(JobLife, TheNodeIsCalledOnceWithAllDisksAfterTheyAreReady) {
  register_vm("pgtest1");
  size_t exports_then = 0;
  hub->node.during_call = [&](const NodeCall&) { exports_then = hub->exports.list().size(); };
  const BackupView full = start("pgtest1");
  ASSERT_EQ(hub->node.calls.size(), 1u);
  const NodeCall& call = hub->node.calls[0];
  EXPECT_EQ(exports_then, 2u);
  EXPECT_EQ(call.job_id, full.job.id);
  EXPECT_EQ(call.vcenter_user, "reader");
  EXPECT_EQ(call.vcenter_password, "secret");
  EXPECT_EQ(call.previous_change_id, "PLACEHOLDER");
  const auto& disks = full.job.disks;
  EXPECT_EQ(call.nbd_targets, "2000:nbd://127.0.0.1:" + std::to_string(disks[0].port) + "/" +
                                  disks[0].export_name + ",2001:nbd://127.0.0.1:" +
                                  std::to_string(disks[1].port) + "/" + disks[1].export_name);
  engine().cancel(full.job.id, "");
}

TEST_F(JobLife, AnIncrementalHandsOutTheChangeIdOfTheBackingImageAndAFullNone) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, "");
  fill(full, "first", 1);
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, change_id(0, 1));
  const BackupView incremental = start("pgtest1", BackupType::incremental);
  EXPECT_EQ(hub->node.calls.back().previous_change_id, change_id(0, 1));
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1"}).change_id, change_id(0, 1));
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1", .disk_id = 1}).change_id, change_id(1, 1));
  EXPECT_EQ(
      engine().change_id_by_path({.vm_path = "/DC1/vm/pgtest1", .disk_id = "disk-2001"}).change_id,
      change_id(1, 1));
  // Disk 0 sealed: a client that asks with disk 0 means the next one.
  {
    Writer writer(*hub, incremental.job.disks[0].export_name);
    ASSERT_TRUE(writer.connect());
    complete(incremental, 0, change_id(0, 2));
  }
  EXPECT_EQ(engine().change_id({.vm_name = "pgtest1", .disk_id = 0}).change_id, change_id(1, 1));
  EXPECT_EQ(engine().backup_disks(incremental.job.id)[1].disk.handed_out_change_id,
            change_id(1, 1));
  engine().cancel(incremental.job.id, "");
}

TEST_F(JobLife, TheFirstDiskLeavesTheJobRunningAndTheLastOneCompletesIt) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  Writer first(*hub, full.job.disks[0].export_name), second(*hub, full.job.disks[1].export_name);
  ASSERT_TRUE(first.connect());
  const CompletedDisk one = complete(full, 0, change_id(0, 1));
  EXPECT_EQ(one.job_state, JobState::running);
  EXPECT_EQ(one.disks_completed, 1u);
  EXPECT_EQ(state_of(full.job.id), "running");
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 0u);
  ASSERT_TRUE(second.connect());
  const CompletedDisk two = complete(full, 1, change_id(1, 1));
  EXPECT_EQ(two.job_state, JobState::completed);
  EXPECT_EQ(two.disks_completed, 2u);
  EXPECT_EQ(engine().chain({.vm_name = "pgtest1"}).points.size(), 1u);
}

TEST_F(JobLife, ARepeatedCompleteGivesTheSameAnswerAndAnotherIdIsAConflict) {
  register_vm("pgtest1", 1);
  const BackupView full = back_up("pgtest1", BackupType::full, "first", 1);
  EXPECT_EQ(complete(full, 0, change_id(0, 1)).job_state, JobState::completed);
  EXPECT_EQ(refusal_of([&] { complete(full, 0, change_id(0, 9)); }), "change_id_conflict");
  EXPECT_EQ(refusal_of([&] { complete(full, 7, change_id(0, 1)); }), "job_not_found");
  // Client 1.0.1 names no disk: its id says which one is meant.
  EXPECT_EQ(engine().complete({.backup_id = full.job.id, .change_id = change_id(0, 1)}).disk_index,
            0u);
}

TEST_F(JobLife, CompleteOfADiskThatNobodyConnectedToIsRefused) {
  register_vm("pgtest1", 1);
  const BackupView full = start("pgtest1");
  EXPECT_EQ(refusal_of([&] { complete(full, 0, change_id(0, 1)); }), "disk_never_connected");
  EXPECT_EQ(state_of(full.job.id), "running");
  engine().cancel(full.job.id, "");
}

TEST_F(JobLife, AFastClientCompletesWhileTheNodeHasNotAnsweredYet) {
  register_vm("pgtest1", 1);
  std::thread client;
  std::atomic<bool> done = false;
  hub->node.during_call = [&](const NodeCall& call) {
    client = std::thread([&, id = call.job_id] {
      const BackupView view = engine().backup(id);
      EXPECT_EQ(view.job.state, JobState::preparing);
      fill(view, "fast", 1);
      done = true;
    });
  };
  hub->node.answer_after = [&]() -> io::Task<void> {
    const io::Runtime home = hub->home();
    while (!done) co_await io::sleep(home.executor, home.clock, std::chrono::milliseconds(5));
  };
  const BackupView full = start("pgtest1");
  client.join();
  EXPECT_EQ(full.job.state, JobState::completed);
  EXPECT_EQ(state_of(full.job.id), "completed");
}

TEST_F(JobLife, AJobThatCompletedStaysSoWhenTheNodesAnswerIsLost) {
  register_vm("pgtest1", 1);
  std::thread client;
  std::atomic<bool> done = false;
  hub->node.during_call = [&](const NodeCall& call) {
    client = std::thread([&, id = call.job_id] {
      fill(engine().backup(id), "fast", 1);
      done = true;
    });
  };
  hub->node.answer_after = [&]() -> io::Task<void> {
    const io::Runtime home = hub->home();
    while (!done) co_await io::sleep(home.executor, home.clock, std::chrono::milliseconds(5));
  };
  hub->node.answer = {.outcome = NodeAnswer::Outcome::unreachable, .text = "timed out"};
  const BackupView full = start("pgtest1");
  client.join();
  EXPECT_EQ(full.job.state, JobState::completed);
}

TEST_F(JobLife, ADiskThatWasAddedOrShrankStandsAloneInAnIncrementalJob) {
  register_vm("pgtest1", 1, 2 << 20);
  back_up("pgtest1", BackupType::full, "first", 1);
  register_vm("pgtest1", 2, 1 << 20);
  const BackupView incremental = back_up("pgtest1", BackupType::incremental, "second", 2);
  const BackupView view = engine().backup(incremental.job.id);
  EXPECT_EQ(view.job.disks[0].type, BackupType::full);
  EXPECT_EQ(view.job.disks[1].type, BackupType::full);
  ASSERT_GE(view.job.warnings.size(), 2u);
  EXPECT_EQ(view.job.warnings[0].code, WarningCode::disk_shrunk);
  EXPECT_EQ(view.job.warnings[1].code, WarningCode::disk_added);
}

TEST_F(JobLife, ASecondFullOpensAGenerationAndTheOldOneStaysAddressable) {
  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "one", 1);
  back_up("pgtest1", BackupType::incremental, "two", 2);
  back_up("pgtest1", BackupType::full, "three", 3);
  back_up("pgtest1", BackupType::incremental, "four", 4);
  const ChainView newest = engine().chain({.vm_name = "pgtest1"});
  EXPECT_EQ(newest.generation, 2u);
  EXPECT_EQ(newest.points.size(), 2u);
  const ChainView first = engine().chain({.vm_name = "pgtest1", .generation = 1});
  EXPECT_EQ(first.points.size(), 2u);
}

TEST_F(JobLife, AVmHasOneJobAtATimeAndOtherVmsGoOn) {
  register_vm("one", 1);
  register_vm("two", 1);
  const BackupView running = start("one");
  EXPECT_EQ(refusal_of([&] { start("one"); }), "backup_running");
  const BackupView other = start("two");
  EXPECT_EQ(state_of(other.job.id), "running");
  engine().cancel(running.job.id, "");
  engine().cancel(other.job.id, "");
  EXPECT_EQ(refusal_of([&] { engine().cancel(start("one").job.id, "again"); }), "");
}

TEST_F(JobLife, TheLinkToTheNewestPointFollowsAndQemuReadsTheWholeChainThroughIt) {
  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "one", 1);
  const std::string link = temp.file("repository/pgtest1-disk-2000/latest.qcow2");
  const std::string first = std::filesystem::read_symlink(link);
  back_up("pgtest1", BackupType::incremental, "two", 2);
  const std::string second = std::filesystem::read_symlink(link);
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::filesystem::exists(link));
  for (const std::string& command : {"qemu-img info --backing-chain " + link,
                                     "qemu-img convert -O raw " + link + " " + temp.file("raw")}) {
    const auto result = support::run_command(command);
    EXPECT_TRUE(result.ok()) << result.output;
  }
  std::string start(3, ' ');
  std::ifstream(temp.file("raw")).read(start.data(), 3);
  EXPECT_EQ(start, "two");
}

TEST_F(JobLife, AParentThatIsRemovedOrReplacedWhileABackupStandsOnItFailsTheBackup) {
  register_vm("pgtest1");
  for (const bool replaced : {false, true}) {
    for (const bool after_seal : {false, true}) {
      SCOPED_TRACE(testing::Message() << replaced << after_seal);
      const BackupView other = back_up("pgtest1", BackupType::full, "another", 1);
      const BackupView full = back_up("pgtest1", BackupType::full, "one", 2);
      const BackupView incremental = start("pgtest1", BackupType::incremental);
      std::vector<std::unique_ptr<Writer>> writers;
      for (const JobDisk& disk : incremental.job.disks) {
        writers.push_back(std::make_unique<Writer>(*hub, disk.export_name));
        ASSERT_TRUE(writers.back()->connect());
      }
      if (after_seal) complete(incremental, 0, change_id(0, 3));
      const std::string parent = full.job.disks[0].image_path;
      std::filesystem::remove(parent);
      if (replaced) std::filesystem::copy_file(other.job.disks[0].image_path, parent);
      std::string details;
      try {
        if (!after_seal) complete(incremental, 0, change_id(0, 3));
        complete(incremental, 1, change_id(1, 3));
      } catch (const Refusal& refusal) {
        details = refusal.details;
      }
      EXPECT_NE(details.find("was removed or replaced"), std::string::npos) << details;
      EXPECT_EQ(state_of(incremental.job.id), "failed");
    }
  }
}

TEST_F(JobLife, CancelRemovesEverythingAndMayBeRepeated) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  Writer writer(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(writer.connect());
  writer.write(0, "some");
  engine().cancel(full.job.id, "operator said so");
  EXPECT_EQ(state_of(full.job.id), "cancelled");
  EXPECT_EQ(engine().backup(full.job.id).job.error_message, "operator said so");
  EXPECT_FALSE(writer.connect());
  expect_nothing_left();
  EXPECT_TRUE(repository_files().empty());
  engine().cancel(full.job.id, "twice");
  EXPECT_EQ(refusal_of([&] { engine().cancel("backup-nobody-1", ""); }), "backup_not_found");
  EXPECT_EQ(refusal_of([&] { complete(full, 0, change_id(0, 1)); }), "job_not_running");
}

TEST_F(JobLife, APercentageThatIsNoneReachesNeitherTheJobNorItsHistory) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  for (const double percent : {40.0, -5.0, 1e300, std::nan("")}) {
    engine().record_telemetry(full.job.id, {.status = "running", .progress_percent = percent});
  }
  std::vector<double> kept;
  for (const ProgressSample& sample : engine().telemetry_history(full.job.id, 100).samples) {
    if (sample.source == SampleSource::client) kept.push_back(sample.percent);
  }
  EXPECT_EQ(kept, (std::vector<double>{40, 0, 99.9, 0}));
  EXPECT_EQ(engine().backup(full.job.id).progress_percent, 99.9);
  EXPECT_EQ(engine().backup(full.job.id).job.telemetry.progress_percent, 99.9);
}

TEST_F(JobLife, TimeLeftIsSaidWhereItCanBeKnown) {
  register_vm("pgtest1", 1);
  const auto left = [this](const BackupView& backup, const Telemetry& report) {
    engine().record_telemetry(backup.job.id, report);
    return engine().backup(backup.job.id).seconds_left;
  };
  back_up("pgtest1", BackupType::full, "first", 1);
  const BackupView incremental = start("pgtest1", BackupType::incremental);
  // Of a disk that changed a little the client alone knows how much comes.
  EXPECT_EQ(left(incremental, {.status = "running", .transfer_speed_bps = 1000}), std::nullopt);
  EXPECT_EQ(left(incremental, {.status = "running", .total_bytes = 8000}), 8u);
  EXPECT_EQ(left(incremental, {.status = "running", .eta_seconds = 77}), 77u);
  engine().cancel(incremental.job.id, "");
  EXPECT_EQ(engine().backup(incremental.job.id).seconds_left, std::nullopt);
  const BackupView full = start("pgtest1");
  EXPECT_EQ(engine().backup(full.job.id).seconds_left, std::nullopt);  // nothing moves yet
  EXPECT_EQ(left(full, {.status = "running", .transfer_speed_bps = 1000, .progress_percent = 50}),
            full.job.capacity_bytes() / 2 / 1000);
}

TEST_F(JobLife, TelemetryNeverCompletesAJobAndItsErrorFailsIt) {
  register_vm("pgtest1");
  const BackupView full = start("pgtest1");
  engine().record_telemetry(full.job.id, {.status = "completed",
                                          .current_phase = "completed",
                                          .bytes_transferred = 5,
                                          .progress_percent = 100});
  EXPECT_EQ(state_of(full.job.id), "running");
  EXPECT_LT(engine().backup(full.job.id).progress_percent, 100);
  engine().record_telemetry(full.job.id, {.status = "running", .error = "disk is gone"});
  EXPECT_EQ(state_of(full.job.id), "failed");
  EXPECT_EQ(engine().backup(full.job.id).job.error_message, "disk is gone");
  engine().record_telemetry(full.job.id, {.status = "running"});
  EXPECT_EQ(state_of(full.job.id), "failed");
  EXPECT_EQ(refusal_of([&] { engine().record_telemetry("nobody", {}); }), "job_not_found");
  EXPECT_GE(engine().telemetry_history(full.job.id, 100).samples.size(), 2u);
}

/// What the client says is of the disk that it copies; a job of two disks is more than that.
TEST_F(JobLife, ProgressOfSeveralDisksNeverExceedsTheWholeAndDoesNotFallBack) {
  register_vm("pgtest1", 2);
  const BackupView full = start("pgtest1");
  const auto say = [&](double percent) {
    engine().record_telemetry(full.job.id, {.status = "running",
                                            .bytes_transferred = kDiskBytes / 2,
                                            .total_bytes = kDiskBytes,
                                            .progress_percent = percent});
    return engine().backup(full.job.id).progress_percent;
  };
  Writer first(*hub, full.job.disks[0].export_name);
  ASSERT_TRUE(first.connect());
  ASSERT_TRUE(wait_until([&] { return engine().backup(full.job.id).job.disks[0].ever_connected; }));
  EXPECT_DOUBLE_EQ(say(50), 25);
  first.write(0, std::string(kDiskBytes, 'a'));
  complete(full, 0, change_id(0, 1));
  EXPECT_DOUBLE_EQ(engine().backup(full.job.id).progress_percent, 50);
  Writer second(*hub, full.job.disks[1].export_name);
  ASSERT_TRUE(second.connect());
  second.write(0, std::string(kDiskBytes / 2, 'b'));
  EXPECT_DOUBLE_EQ(say(50), 75);
  Job job = engine().backup(full.job.id).job;
  engine().cancel(full.job.id, "");
  ASSERT_EQ(job.telemetry.total_bytes, kDiskBytes);
  job.disks[0].counters.bytes_received = kDiskBytes;
  job.disks[1].counters.bytes_received = kDiskBytes * 7 / 10;
  EXPECT_EQ(job.total_bytes(), kDiskBytes * 2) << "85 %, not 170";
  job.disks[1].counters.bytes_received = kDiskBytes * 3;
  EXPECT_EQ(job.total_bytes(), kDiskBytes * 4) << "a client may write a place twice";
}

/// Asks for the metrics without a pause while jobs end.
class MetricsReader {
 public:
  explicit MetricsReader(Engine& engine) : thread_([this, &engine] { run(engine); }) {}
  /// How often a counter was less than before.
  uint64_t dips() {
    stopping_ = true;
    thread_.join();
    return dips_;
  }

 private:
  static std::vector<uint64_t> totals_of(const MetricsSnapshot& now) {
    return {now.bytes_received, now.bytes_zeroed, now.bytes_elided, now.bytes_stored,
            now.bytes_read};
  }
  void run(Engine& engine) {
    std::vector<uint64_t> last(5);
    while (!stopping_) {
      const std::vector<uint64_t> now = totals_of(engine.metrics());
      for (size_t at = 0; at < now.size(); ++at) dips_ += now[at] < last[at];
      last = now;
    }
  }

  std::atomic<bool> stopping_ = false;
  uint64_t dips_ = 0;
  std::thread thread_;
};

TEST_F(JobLife, CountersOfTrafficNeverFallWhileAJobOfSeveralDisksEnds) {
  register_vm("pgtest1", 4);
  const auto filled = [&](bool keep_partial) {
    const BackupView job = engine().start_backup({.vm_name = "pgtest1",
                                                  .backup_type = BackupType::full,
                                                  .repository_id = "1",
                                                  .keep_partial = keep_partial});
    for (const JobDisk& disk : job.job.disks) {
      Writer writer(*hub, disk.export_name);
      EXPECT_TRUE(writer.connect());
      writer.write(0, std::string(65536, 'x'));
      hub->exports.find(disk.export_name)->counters().bytes_received += 65536;
    }
    return job.job.id;
  };
  MetricsReader reader(engine());
  for (int round = 0; round < 5; ++round) {
    engine().cancel(filled(false), "");
    const std::string failed = filled(true);
    engine().record_telemetry(failed, {.status = "failed"});
    EXPECT_TRUE(wait_until([&] { return state_of(failed) == "failed"; }));
    back_up("pgtest1", BackupType::full, "whole", round + 1);
    EXPECT_TRUE(wait_until([&] { return engine().exports().empty(); }));
  }
  EXPECT_EQ(reader.dips(), 0u);
  EXPECT_EQ(engine().metrics().bytes_received, 5u * 2 * 4 * 65536);
}

TEST_F(JobLife, MetricsCountEveryStateOfTheCatalogueAndBeginAtZero) {
  MetricsSnapshot before = engine().metrics();
  EXPECT_EQ(before.backups_total.size(), 6u) << "three results of two types";
  EXPECT_EQ(before.node_calls_total.size(), 3u);
  const auto errors = std::ranges::count_if(
      before.nbd_requests_total, [](const auto& total) { return total.result == "error"; });
  EXPECT_EQ(errors, 9);
  for (const auto& total : before.backups_total) EXPECT_EQ(total.count, 0u) << total.result;

  register_vm("pgtest1", 1);
  back_up("pgtest1", BackupType::full, "first", 1);
  const BackupView cancelled = start("pgtest1");
  engine().cancel(cancelled.job.id, "");
  const BackupView running = start("pgtest1");
  const MetricsSnapshot after = engine().metrics();
  EXPECT_EQ(after.jobs,
            (std::map<JobState, uint64_t>{
                {JobState::running, 1}, {JobState::completed, 1}, {JobState::cancelled, 1}}));
  restart();
  EXPECT_EQ(engine().metrics().jobs.at(JobState::completed), 1u) << "also after a restart";
}

}  // namespace
}  // namespace engine_test
