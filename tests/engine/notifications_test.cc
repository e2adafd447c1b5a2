// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include "engine/catalogue/db.h"
#include "tests/engine/engine_fixture.h"

/// Who is told of what, and what /metrics says of it: docs/monitoring.md.
namespace engine_test {
namespace {

using namespace std::chrono_literals;
using enum NotificationEvent;

class Notifications : public EngineTest {
 protected:
  std::vector<Notification> told(NotificationEvent event) { return hub->told.of(event); }
  /// The only one of its kind.
  Notification only(NotificationEvent event) {
    EXPECT_TRUE(wait_until([&] { return !told(event).empty(); })) << to_text(event);
    const auto all = told(event);
    EXPECT_EQ(all.size(), 1u) << to_text(event);
    return all.empty() ? Notification() : all.front();
  }
  void expect_interval(const std::string& vm_name, std::optional<uint64_t> seconds) {
    PutVmContext request;
    request.vm_name = vm_name;
    request.vm_path = "/DC1/vm/" + vm_name;
    request.vcenter_host = "vc1.example";
    request.credentials.kind = CredentialsChange::Kind::reference;
    request.credentials.reference = "vc1";
    request.disks = {{.disk_id = "disk-2000", .capacity_bytes = kDiskBytes}};
    request.expected_interval = {.is_given = true, .seconds = seconds};
    engine().put_vm(request);
  }
  /// Changes a byte where the file holds this.
  static void spoil(const std::string& path, const std::string& where) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(file), {}};
    const size_t at = content.find(where);
    ASSERT_NE(at, std::string::npos);
    file.seekp(static_cast<std::streamoff>(at));
    file.put('y');
  }
  uint64_t failures(FailureCode code) { return engine().metrics().job_failures_total.at(code); }
};

TEST_F(Notifications, EveryEndOfABackupIsToldWithItsCause) {
  register_vm("pgtest1", 1);
  const BackupView good = back_up("pgtest1", BackupType::full, "one", 1);
  const Notification completed = only(NotificationEvent::completed);
  EXPECT_EQ(completed.vm_name, "pgtest1");
  EXPECT_EQ(completed.backup_id, good.job.id);
  EXPECT_EQ(completed.repository_id, "1");
  EXPECT_EQ(completed.text, "full backup of VM pgtest1 completed");
  EXPECT_GT(unix_seconds(completed.at), 0);

  const BackupView dropped = start("pgtest1");
  engine().cancel(dropped.job.id, "the operator's whim");
  EXPECT_EQ(only(NotificationEvent::cancelled).text,
            "full backup of VM pgtest1 cancelled: the operator's whim");
  EXPECT_TRUE(told(NotificationEvent::failed).empty());

  const BackupView bad = start("pgtest1");
  engine().record_telemetry(bad.job.id, {.error = "disk on fire"});
  const Notification failed = only(NotificationEvent::failed);
  EXPECT_EQ(failed.backup_id, bad.job.id);
  EXPECT_EQ(failed.text, "full backup of VM pgtest1 failed: disk on fire");
  EXPECT_EQ(failed.details.at("code"), "client");
  EXPECT_EQ(failures(FailureCode::client), 1u);
  const auto events = engine().metrics().events_total;
  EXPECT_EQ(events.at(NotificationEvent::completed), 1u);
  EXPECT_EQ(events.at(NotificationEvent::cancelled), 1u);
  EXPECT_EQ(events.at(NotificationEvent::failed), 1u);
  EXPECT_EQ(events.at(damaged), 0u);
  EXPECT_EQ(engine().metrics().notifications_total.front().count, 7u);
}

TEST_F(Notifications, AFailureHasTheCodeOfItsReason) {
  restart([](EngineOptions& options) { options.timeouts.first_connect = 50ms; });
  register_vm("pgtest1", 1);
  start("pgtest1");
  EXPECT_EQ(only(NotificationEvent::failed).details.at("code"), "never_connected");
  EXPECT_EQ(failures(FailureCode::never_connected), 1u);
  hub->node.answer = {.outcome = NodeAnswer::Outcome::refused, .status = 500};
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "node_refused");
  EXPECT_EQ(failures(FailureCode::not_started), 1u);
  EXPECT_EQ(engine().metrics().start_refusals_total.at("node_refused"), 1u);
  EXPECT_EQ(engine().metrics().start_refusals_total.at("no_space"), 0u);
}

TEST_F(Notifications, AVmIsOverdueOnceForEachSilence) {
  expect_interval("pgtest1", 3600);
  expect_interval("unexpected", 0);
  EXPECT_FALSE(engine().vm("pgtest1").vm.overdue);
  const Time registered = engine().vm("pgtest1").vm.created_at;
  hub->clock->hold(registered + 1h + 1s);
  EXPECT_TRUE(engine().vm("pgtest1").vm.overdue);
  expect_interval("pgtest1", 3600);  // also rouses the watch, which looks once a minute otherwise
  const Notification first = only(overdue);
  EXPECT_EQ(first.vm_name, "pgtest1");
  EXPECT_EQ(first.text, "VM pgtest1 is overdue: it has no good point, and is registered since " +
                            to_rfc3339(registered) + ", and one is expected every 1h0m0s");

  back_up("pgtest1", BackupType::full, "one", 1);
  const Vm now = engine().vm("pgtest1").vm;
  EXPECT_FALSE(now.overdue);
  EXPECT_EQ(now.last_good_at, registered + 1h + 1s);
  expect_interval("pgtest1", 3600);
  EXPECT_FALSE(wait_until([&] { return told(overdue).size() > 1; }, 100ms));

  hub->clock->hold(registered + 3h);
  expect_interval("pgtest1", 3600);
  EXPECT_TRUE(wait_until([&] { return told(overdue).size() == 2; })) << "another silence";
  EXPECT_EQ(told(overdue).back().details.at("last_good_at"), to_rfc3339(registered + 1h + 1s));
  const MetricsSnapshot metrics = engine().metrics();
  EXPECT_TRUE(metrics.vms[0].overdue);
  EXPECT_EQ(metrics.vms[0].expected_interval_seconds, 3600u);
  EXPECT_EQ(metrics.vms[1].expected_interval_seconds, 0u);
}

TEST_F(Notifications, APointOfAClockThatRanAheadSilencesNoAlarm) {
  const Time ahead = to_seconds(hub->clock->wall_time()) + std::chrono::days(365);
  hub->clock->hold(ahead);
  expect_interval("pgtest1", 3600);
  back_up("pgtest1", BackupType::full, "one", 1);
  hub->clock->hold(ahead - 30min);
  EXPECT_FALSE(engine().vm("pgtest1").vm.overdue) << "less than the interval";
  hub->clock->hold(ahead - 2h);
  EXPECT_TRUE(engine().vm("pgtest1").vm.overdue);
  expect_interval("pgtest1", 3600);
  EXPECT_NE(only(overdue).text.find("the clock was wrong then"), std::string::npos);
}

TEST_F(Notifications, TheDefaultIntervalHoldsForVmsThatSayNothing) {
  restart([](EngineOptions& options) { options.expected_interval = std::chrono::seconds(60); });
  register_vm("usual", 1);
  expect_interval("never", 0);
  expect_interval("own", 90);
  EXPECT_EQ(engine().vm("usual").vm.expected_interval_seconds, 60u);
  EXPECT_EQ(engine().vm("never").vm.expected_interval_seconds, 0u);
  EXPECT_EQ(engine().vm("own").vm.expected_interval_seconds, 90u);
  register_vm("own", 1);
  EXPECT_EQ(engine().vm("own").vm.expected_interval_seconds, 90u) << "left out: as before";
  expect_interval("own", std::nullopt);
  EXPECT_EQ(engine().vm("own").vm.expected_interval_seconds, 60u);
}

TEST_F(Notifications, DamageIsToldWithTheBackupsThatReadIt) {
  expect_interval("pgtest1", 3600);
  const BackupView full = back_up("pgtest1", BackupType::full, std::string(65536, 'x'), 1);
  engine().verify({.by_libqcow = false, .vm_name = "pgtest1"});
  EXPECT_TRUE(wait_until([&] { return engine().vm("pgtest1").vm.last_verified_at.has_value(); }));
  EXPECT_EQ(engine().vm("pgtest1").vm.last_verified_at, engine().vm("pgtest1").vm.last_good_at);
  EXPECT_TRUE(told(damaged).empty());
  spoil(full.job.disks[0].image_path, "xxxxxxxx");
  wait_until([&] { return engine().verifications().front().state != VerificationState::running; });
  engine().verify({.by_libqcow = false, .vm_name = "pgtest1"});
  const Notification told_of = only(damaged);
  EXPECT_EQ(told_of.vm_name, "pgtest1");
  EXPECT_EQ(told_of.backup_id, full.job.id);
  EXPECT_EQ(told_of.repository_id, "1");
  EXPECT_EQ(told_of.details.at("damaged_backups"), full.job.id);
  const Vm vm = engine().vm("pgtest1").vm;
  EXPECT_EQ(vm.last_good_at, std::nullopt) << "there is no good backup any more";
  EXPECT_EQ(vm.last_verified_at, std::nullopt);
}

TEST_F(Notifications, ARepositoryThatGoesOrFillsUpIsToldOfOnce) {
  restart([](EngineOptions& options) { options.repository_interval = 20ms; });
  const std::string path = temp.file("repository");
  std::filesystem::rename(path, temp.file("away"));
  EXPECT_EQ(only(unavailable).repository_id, "1");
  EXPECT_FALSE(engine().metrics().repositories[0].available);
  std::filesystem::rename(temp.file("away"), path);
  EXPECT_TRUE(wait_until([&] { return engine().metrics().repositories[0].available; }));
  EXPECT_TRUE(told(space).empty());

  restart([](EngineOptions& options) {
    options.repository_interval = 20ms;
    options.space_reserve_bytes = UINT64_MAX / 4;
  });
  const Notification low = only(space);
  EXPECT_EQ(low.repository_id, "1");
  EXPECT_EQ(low.details.at("reserve_bytes"), std::to_string(UINT64_MAX / 4));
  register_vm("pgtest1", 1);
  EXPECT_EQ(refusal_of([&] { start("pgtest1"); }), "no_space");
  EXPECT_EQ(engine().metrics().start_refusals_total.at("no_space"), 1u);
  EXPECT_FALSE(wait_until([&] { return told(space).size() > 1; }, 100ms));
}

TEST_F(Notifications, WhatARestartFindsFailedIsTold) {
  register_vm("pgtest1", 1);
  start("pgtest1");
  hub.reset();
  Db(temp.file("catalogue.db")).exec("UPDATE job SET state = 'running', completed_at = NULL");
  restart();
  EXPECT_EQ(only(NotificationEvent::failed).details.at("code"), "restart");
}

TEST_F(Notifications, MetricsShowWhatRunsAndHowLongChainsAre) {
  register_vm("pgtest1", 2);
  back_up("pgtest1", BackupType::full, "one", 1);
  back_up("pgtest1", BackupType::incremental, "two", 2);
  const BackupView running = start("pgtest1", BackupType::incremental);
  const MetricsSnapshot metrics = engine().metrics();
  ASSERT_EQ(metrics.running_jobs.size(), 1u);
  EXPECT_EQ(metrics.running_jobs[0].vm_name, "pgtest1");
  EXPECT_EQ(metrics.exports.at(ExportKind::ingest), 2u);
  ASSERT_EQ(metrics.chains.size(), 2u);
  EXPECT_EQ(metrics.chains[1].disk_index, 1u);
  EXPECT_EQ(metrics.chains[1].images, 2u);
  EXPECT_EQ(metrics.tasks_running.at("verification"), 0u);
  EXPECT_TRUE(metrics.ready);
  EXPECT_GT(metrics.repositories[0].space->total_bytes, 0u);
}

}  // namespace
}  // namespace engine_test
