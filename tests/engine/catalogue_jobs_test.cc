// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CatalogueJobs : public CatalogueTest {
 protected:
  Job find(const std::string& id) { return catalogue().jobs.find(id).value(); }
  std::vector<std::string> ids(const BackupFilter& filter) {
    std::vector<std::string> ids;
    for (const Job& job : catalogue().jobs.list(filter).jobs) ids.push_back(job.id);
    return ids;
  }
  using Ids = std::vector<std::string>;
};

TEST_F(CatalogueJobs, A4AJobIsDurableWithAllItsNames) {
  const Vm vm = add_vm("pgtest1");
  const Job inserted = start(vm, BackupType::full);
  open();
  const Job job = find(inserted.id);
  EXPECT_EQ(job.id, "backup-pgtest1-1759913694");
  EXPECT_EQ(job.state, JobState::preparing);
  EXPECT_EQ(job.context_id, vm.context_id);
  EXPECT_EQ(job.vm_path, "/DC1/vm/pgtest1");
  ASSERT_EQ(job.disks.size(), 2u);
  const JobDisk& disk = job.disks[1];
  EXPECT_EQ(disk.key, 2001u);
  EXPECT_EQ(disk.image_id, "backup-pgtest1-disk1-20251008-085454");
  EXPECT_EQ(
      disk.image_path,
      "/backup/1/ctx-pgtest1-20251008-085454/disk-1/backup-pgtest1-disk1-20251008-085454.qcow2");
  EXPECT_EQ(disk.export_name, "pgtest1-1759913694-disk1");
  EXPECT_EQ(disk.state, DiskState::pending);
  EXPECT_GT(disk.id, 0);
}

TEST_F(CatalogueJobs, A43AVmHasOneActiveJob) {
  const Vm vm = add_vm("a");
  add_repository("2");
  const Job first = start(vm, BackupType::full);
  try {
    start(vm, BackupType::full, "2");
    FAIL();
  } catch (const Refusal& refusal) {
    EXPECT_EQ(refusal.code, "backup_running");
    EXPECT_NE(refusal.details.find(first.id), std::string::npos);
  }
  EXPECT_NO_THROW(start(add_vm("b"), BackupType::full));
  catalogue().jobs.end(first.id, JobState::failed, "x", now());
  EXPECT_NO_THROW(start(vm, BackupType::full, "2"));
}

TEST_F(CatalogueJobs, WhatAJobKeptBelongsToTheJobThatResumesItAndToNobodyElse) {
  const Vm vm = add_vm("a");
  const Job first = start(vm, BackupType::full);
  catalogue().jobs.end(first.id, JobState::failed, "x", now(), true);
  ASSERT_EQ(catalogue().jobs.kept_jobs().size(), 1u);
  Job next = find(first.id);
  next.resumes = first.id;
  next.created_at += std::chrono::seconds(5);
  const Job resumed = catalogue().jobs.insert(next, "/backup/1");
  open();
  EXPECT_TRUE(catalogue().jobs.kept_jobs().empty());
  EXPECT_NE(resumed.id, first.id);
  const Job now_first = find(first.id), now_resumed = find(resumed.id);
  for (size_t disk = 0; disk < first.disks.size(); ++disk) {
    EXPECT_EQ(now_resumed.disks[disk].image_id, first.disks[disk].image_id);
    EXPECT_EQ(now_resumed.disks[disk].image_path, first.disks[disk].image_path);
    EXPECT_NE(now_resumed.disks[disk].export_name, first.disks[disk].export_name);
    EXPECT_NE(now_first.disks[disk].image_id, first.disks[disk].image_id);
  }
  catalogue().jobs.end(resumed.id, JobState::failed, "y", now(), true);
  EXPECT_THROW(catalogue().jobs.insert(next, "/backup/1"), Refusal);
  EXPECT_EQ(catalogue().jobs.known_images("1").size(), first.disks.size());
  EXPECT_TRUE(catalogue().jobs.forget_kept(resumed.id));
  EXPECT_FALSE(catalogue().jobs.forget_kept(resumed.id));
  EXPECT_TRUE(catalogue().jobs.known_images("1").empty());
}

TEST_F(CatalogueJobs, A22TwoJobsInOneSecondGetDifferentNamesForEver) {
  const Vm vm = add_vm("a");
  const Job first = start(vm, BackupType::full);
  catalogue().jobs.end(first.id, JobState::failed, "x", now());
  const Job second = start(vm, BackupType::full);
  EXPECT_EQ(second.id, "backup-a-1759913694-2");
  EXPECT_EQ(second.disks[0].export_name, "a-1759913694-2-disk0");
  EXPECT_EQ(second.disks[0].image_id, "backup-a-disk0-20251008-085454-2");
  catalogue().jobs.end(second.id, JobState::failed, "x", now());
  for (const std::string& id : {first.id, second.id}) {
    catalogue().jobs.mark_deleting({id});
    catalogue().jobs.erase(id, now());
  }
  EXPECT_EQ(start(vm, BackupType::full).id, "backup-a-1759913694-3");
}

TEST_F(CatalogueJobs, AJobIsLedThroughItsLife) {
  const Vm vm = add_vm("a");
  const Job job = start(vm, BackupType::full);
  catalogue().jobs.set_ports(job.id, "2000:nbd://h:10100/x", {{0, 10100}, {1, 10101}});
  EXPECT_EQ(find(job.id).nbd_targets, "2000:nbd://h:10100/x");
  EXPECT_EQ(find(job.id).disks[1].port, 10101);
  catalogue().jobs.set_running(job.id, tick());
  EXPECT_EQ(find(job.id).state, JobState::running);
  EXPECT_EQ(find(job.id).started_at, now());
  catalogue().jobs.set_transferring(job.id, 0);
  EXPECT_EQ(find(job.id).disks[0].state, DiskState::transferring);
  EXPECT_TRUE(find(job.id).disks[0].ever_connected);
  EXPECT_FALSE(find(job.id).disks[1].ever_connected);
  tick();
  seal_all(job, 1);
  EXPECT_EQ(find(job.id).disks[0].state, DiskState::sealed);
  EXPECT_EQ(find(job.id).disks[0].change_id, change_id(0, 1));
  EXPECT_EQ(find(job.id).disks[0].completed_at, now());
  EXPECT_EQ(find(job.id).disks[0].file_bytes, 65536u * 5);
  catalogue().jobs.set_transferring(job.id, 0);
  EXPECT_EQ(find(job.id).disks[0].state, DiskState::sealed) << "a late connection changes nothing";
  tick();
  decide(job.id);
  EXPECT_EQ(find(job.id).state, JobState::finalizing);
  EXPECT_FALSE(find(job.id).completed_at);
  EXPECT_FALSE(catalogue().points.any(vm.context_id, "1")) << "nothing unpublished is a parent";
  const Time decided_at = now();
  tick(50);
  catalogue().jobs.publish(job.id);
  const Job done = find(job.id);
  EXPECT_EQ(done.state, JobState::completed);
  EXPECT_EQ(done.completed_at, decided_at) << "as in the sidecar, however late the publish is";
  EXPECT_EQ(done.nbd_targets, "");
  EXPECT_EQ(done.disks[0].state, DiskState::completed);
  EXPECT_EQ(done.disks[0].port, 0);
  EXPECT_EQ(done.disks[0].place.generation, 1u);
  EXPECT_EQ(done.bytes_received(), 1000u + 1001u);
  EXPECT_TRUE(catalogue().points.any(vm.context_id, "1"));
}

TEST_F(CatalogueJobs, A50TheDecisionSurvivesARestartByteForByte) {
  const Job job = start(add_vm("a"), BackupType::full);
  seal_all(job, 1);
  decide(job.id);
  const std::vector<DecidedImage> before = catalogue().jobs.decided_images(job.id);
  tick(1000);
  open();
  ASSERT_EQ(catalogue().jobs.active_jobs().size(), 1u);
  EXPECT_EQ(catalogue().jobs.active_jobs()[0].state, JobState::finalizing);
  const std::vector<DecidedImage> after = catalogue().jobs.decided_images(job.id);
  ASSERT_EQ(after.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(after[i].sidecar, before[i].sidecar);
    EXPECT_EQ(after[i].image_path, job.disks[i].image_path);
    EXPECT_EQ(decode_sidecar(after[i].sidecar).disk.image_id, job.disks[i].image_id);
  }
  catalogue().jobs.publish(job.id);
  EXPECT_TRUE(catalogue().jobs.decided_images(job.id).empty());
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

TEST_F(CatalogueJobs, AFastClientMayCompleteWhileTheNodeStillAnswers) {
  const Job job = start(add_vm("a"), BackupType::full);
  seal_all(job, 1);
  decide(job.id);
  catalogue().jobs.publish(job.id);
  catalogue().jobs.set_running(job.id, tick());
  EXPECT_EQ(find(job.id).state, JobState::completed);
  EXPECT_EQ(find(job.id).started_at, job.created_at);
}

TEST_F(CatalogueJobs, CallsThatDoNotFitTheStateChangeNothing) {
  const Job job = start(add_vm("a"), BackupType::full);
  EXPECT_THROW(decide(job.id), std::logic_error);
  EXPECT_THROW(catalogue().jobs.publish(job.id), std::logic_error);
  EXPECT_THROW(catalogue().jobs.set_sealed(job.id, 0, {}, now()), std::logic_error);
  EXPECT_THROW(catalogue().jobs.mark_deleting({job.id}), std::logic_error);
  EXPECT_THROW(catalogue().jobs.erase(job.id, now()), std::logic_error);
  seal_all(job, 1);
  EXPECT_THROW(catalogue().jobs.set_sealing(job.id, 0), std::logic_error);
  EXPECT_THROW(catalogue().jobs.decide(job.id, {}, now()), std::logic_error);
  EXPECT_EQ(find(job.id).state, JobState::preparing);
}

TEST_F(CatalogueJobs, AnEndedJobStaysAsItEnded) {
  const Job job = start(add_vm("a"), BackupType::full);
  catalogue().jobs.set_ports(job.id, "targets", {{0, 10100}});
  catalogue().jobs.set_sealing(job.id, 0);
  catalogue().jobs.set_sealed(job.id, 0, {}, now());
  catalogue().jobs.end(job.id, JobState::failed, "client vanished", tick());
  const Job failed = find(job.id);
  EXPECT_EQ(failed.state, JobState::failed);
  EXPECT_EQ(failed.error_message, "client vanished");
  EXPECT_EQ(failed.completed_at, now());
  EXPECT_EQ(failed.nbd_targets, "");
  EXPECT_EQ(failed.disks[0].port, 0);
  EXPECT_EQ(failed.disks[0].state, DiskState::failed) << "sealed ones go too";
  EXPECT_EQ(failed.disks[0].error_message, "");
  EXPECT_EQ(failed.disks[1].error_message, "client vanished");
  catalogue().jobs.end(job.id, JobState::cancelled, "late", tick());
  EXPECT_EQ(find(job.id).error_message, "client vanished");
}

TEST_F(CatalogueJobs, AFinalizingJobMayStillFail) {
  const Vm vm = add_vm("a");
  const Job job = start(vm, BackupType::full);
  seal_all(job, 1);
  decide(job.id);
  catalogue().jobs.end(job.id, JobState::failed, "EIO", tick());
  EXPECT_EQ(find(job.id).state, JobState::failed);
  EXPECT_TRUE(catalogue().jobs.decided_images(job.id).empty());
  EXPECT_FALSE(catalogue().points.any(vm.context_id, "1"));
}

TEST_F(CatalogueJobs, CountersWarningsAndHandedOutIdsAreKept) {
  const Job job = start(add_vm("a"), BackupType::full);
  const DiskCounters counters{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  catalogue().jobs.set_counters(job.id, 1, counters);
  catalogue().jobs.set_handed_out(job.id, 1, "handed/1");
  SealRecord record;
  record.change_id = "u/1";
  record.warnings = {{WarningCode::sampled_zeroes, 0, "one"}};
  catalogue().jobs.set_sealing(job.id, 0);
  catalogue().jobs.set_sealed(job.id, 0, record, now());
  open();
  EXPECT_EQ(find(job.id).disks[1].counters, counters);
  EXPECT_EQ(find(job.id).disks[1].handed_out_change_id, "handed/1");
  ASSERT_EQ(find(job.id).warnings.size(), 1u);
  EXPECT_EQ(find(job.id).warnings[0].message, "one");
}

TEST_F(CatalogueJobs, A20TelemetryOverwritesOnlyWithWhatItSaysAndOnlyWhileTheJobRuns) {
  const Job job = start(add_vm("a"), BackupType::full);
  Telemetry report;
  report.status = "completed";
  report.current_phase = "transferring";
  report.bytes_transferred = 10;
  report.total_bytes = 100;
  report.transfer_speed_bps = 5;
  report.eta_seconds = 18;
  report.progress_percent = 10;
  catalogue().jobs.set_telemetry(job.id, report, tick());
  catalogue().jobs.set_telemetry(job.id, {}, tick());
  const TelemetryState state = find(job.id).telemetry;
  EXPECT_EQ(state.current_phase, "transferring");
  EXPECT_EQ(state.bytes_transferred, 10u);
  EXPECT_EQ(state.total_bytes, 100u);
  EXPECT_EQ(state.transfer_speed_bps, 5u);
  EXPECT_EQ(state.eta_seconds, 18u);
  EXPECT_EQ(state.progress_percent, 10);
  EXPECT_EQ(state.last_at, now());
  EXPECT_EQ(find(job.id).state, JobState::preparing) << "completed is progress only";
  catalogue().jobs.end(job.id, JobState::failed, "x", tick());
  report.bytes_transferred = 50;
  catalogue().jobs.set_telemetry(job.id, report, tick());
  EXPECT_EQ(find(job.id).telemetry.bytes_transferred, 10u);
}

TEST_F(CatalogueJobs, A31FiltersCombineNewestFirst) {
  add_repository("2");
  const Vm web = add_vm("web-disk2"), db = add_vm("db");
  const Job full = backup(web, BackupType::full, 1);
  const Job incremental = backup(web, BackupType::incremental, 2);
  const Job other = backup(web, BackupType::full, 3, "2");
  const Job db_full = backup(db, BackupType::full, 1);
  tick();
  const Job running = start(web, BackupType::incremental);
  const auto filter = [](auto change) {
    BackupFilter filter;
    change(filter);
    return filter;
  };
  EXPECT_EQ(ids({}), (Ids{running.id, db_full.id, other.id, incremental.id, full.id}));
  EXPECT_EQ(ids(filter([](BackupFilter& f) { f.vm_name = "web-disk2"; })),
            (Ids{running.id, other.id, incremental.id, full.id}));
  EXPECT_EQ(ids(filter([&](BackupFilter& f) { f.vm_context_id = db.context_id; })),
            Ids{db_full.id});
  EXPECT_EQ(ids(filter([](BackupFilter& f) { f.repository_id = "2"; })), Ids{other.id});
  EXPECT_EQ(ids(filter([](BackupFilter& f) { f.status = ShownStatus::pending; })), Ids{running.id});
  EXPECT_EQ(ids(filter([](BackupFilter& f) {
              f.status = ShownStatus::completed;
              f.backup_type = BackupType::full;
              f.vm_name = "web-disk2";
              f.repository_id = "1";
            })),
            Ids{full.id});
  EXPECT_EQ(ids(filter([](BackupFilter& f) { f.vm_name = "nobody"; })), Ids{});
  const JobPage page = catalogue().jobs.list(filter([](BackupFilter& f) {
    f.limit = 2;
    f.offset = 1;
  }));
  EXPECT_EQ(page.total, 5u);
  ASSERT_EQ(page.jobs.size(), 2u);
  EXPECT_EQ(page.jobs[0].id, db_full.id);
  EXPECT_EQ(page.jobs[0].disks.size(), 2u);
  EXPECT_EQ(ids(filter([](BackupFilter& f) { f.limit = UINT64_MAX; })).size(), 5u);
}

TEST_F(CatalogueJobs, AListByInventoryNameGivesEveryVmOfThatName) {
  for (const char* name : {"db 1", "db 2"}) {
    PutVmContext request = registration(name);
    request.vm_path = "/DC1/vm/db";
    catalogue().vms.put(request, now());
    backup(catalogue().vms.find(name).value(), BackupType::full, 1);
  }
  BackupFilter filter;
  filter.vm_name = "db";
  EXPECT_EQ(ids(filter).size(), 2u);
  backup(add_vm("db"), BackupType::full, 1);
  EXPECT_EQ(ids(filter).size(), 1u) << "a registered name wins";
}

TEST_F(CatalogueJobs, A32TotalsCountCompletedJobs) {
  const Vm vm = add_vm("a");
  EXPECT_EQ(catalogue().jobs.totals(vm.context_id, "1").backup_count, 0u);
  EXPECT_FALSE(catalogue().jobs.totals(vm.context_id, "1").last_backup_at);
  backup(vm, BackupType::full, 1);
  const Job last = backup(vm, BackupType::incremental, 2);
  tick();
  catalogue().jobs.end(start(vm, BackupType::full).id, JobState::failed, "x", now());
  const JobTotals totals = catalogue().jobs.totals(vm.context_id, "1");
  EXPECT_EQ(totals.backup_count, 2u);
  EXPECT_EQ(totals.total_size_bytes, 2u * (1000 + 1001));
  EXPECT_EQ(totals.last_backup_at, last.completed_at);
}

TEST_F(CatalogueJobs, CompletedJobsAreSummedUpByTheDayOnWhichTheyBegan) {
  constexpr int64_t kDay = 86'400;
  add_repository("2");
  const Vm vm = add_vm("a"), other = add_vm("b");
  backup(vm, BackupType::full, 1);
  backup(vm, BackupType::incremental, 2);
  tick(2 * kDay);
  backup(other, BackupType::full, 3, "2");
  tick();
  catalogue().jobs.end(start(vm, BackupType::full).id, JobState::failed, "x", now());
  const std::vector<BackupDay> days = catalogue().jobs.by_day({}, now());
  ASSERT_EQ(days.size(), 2u) << "a day without a backup is left out";
  EXPECT_EQ(to_rfc3339(days[0].date), "2025-10-08T00:00:00Z");
  EXPECT_EQ(days[0].backup_count, 2u);
  EXPECT_EQ(days[0].bytes_received, 2u * (1000 + 1001));
  EXPECT_EQ(days[0].bytes_stored, 2u * 2 * 500);
  EXPECT_EQ(days[0].seconds, 2u * 9);
  EXPECT_EQ(to_rfc3339(days[1].date), "2025-10-10T00:00:00Z");
  EXPECT_EQ(days[1].backup_count, 1u);
  EXPECT_EQ(catalogue().jobs.by_day({.days = 2}, now()).size(), 1u);
  EXPECT_EQ(catalogue().jobs.by_day({.repository_id = "2"}, now()).at(0).backup_count, 1u);
  EXPECT_EQ(catalogue().jobs.by_day({.vm_name = "a"}, now()).at(0).backup_count, 2u);
  EXPECT_TRUE(catalogue().jobs.by_day({.vm_name = "c"}, now()).empty());
}

TEST_F(CatalogueJobs, TheImagesOfARepositoryThatRowsOwnAreKnown) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  tick();
  catalogue().jobs.end(start(vm, BackupType::full).id, JobState::failed, "x", now());
  const Job running = start(vm, BackupType::incremental);
  const std::vector<KnownImage> images = catalogue().jobs.known_images("1");
  ASSERT_EQ(images.size(), 4u) << "a failed job owns nothing";
  EXPECT_EQ(images[0].image_path, full.disks[0].image_path);
  EXPECT_EQ(images[0].job_state, JobState::completed);
  EXPECT_EQ(images[3].image_id, running.disks[1].image_id);
  EXPECT_EQ(images[3].job_state, JobState::preparing);
  EXPECT_TRUE(catalogue().jobs.known_images("2").empty());
}

// ---------------------------------------------------------------- deletion

TEST_F(CatalogueJobs, A30DependentsAreFoundNewestFirst) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  const Job one = backup(vm, BackupType::incremental, 2);
  const Job two = backup(vm, BackupType::incremental, 3);
  const Job second_full = backup(vm, BackupType::full, 4);
  EXPECT_EQ(catalogue().jobs.dependents(full.id), (Ids{two.id, one.id}));
  EXPECT_EQ(catalogue().jobs.dependents(two.id), Ids{});
  EXPECT_EQ(catalogue().jobs.dependents(second_full.id), Ids{});
}

TEST_F(CatalogueJobs, A30AfterDeletingTheNewestItsParentIsTheNewestAgain) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  const Job one = backup(vm, BackupType::incremental, 2);
  catalogue().jobs.mark_deleting({one.id});
  EXPECT_EQ(catalogue().points.newest(vm.context_id, "1", 0)->job_id, full.id);
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, "")[0].change_id, change_id(0, 1));
  open();
  ASSERT_EQ(catalogue().jobs.deleting_jobs().size(), 1u) << "a crash in between is finished";
  catalogue().jobs.erase(one.id, now());
  EXPECT_FALSE(catalogue().jobs.find(one.id));
  const Job next = backup(vm, BackupType::incremental, 3);
  EXPECT_EQ(next.disks[0].parent_image_id, full.disks[0].image_id);
  EXPECT_EQ(next.disks[0].parent_change_id, change_id(0, 1));
  EXPECT_EQ(next.disks[0].place.position, 1u);
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

TEST_F(CatalogueJobs, A30AParentCannotBeErasedBeforeItsChildren) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  const Job one = backup(vm, BackupType::incremental, 2);
  catalogue().jobs.mark_deleting({one.id, full.id});
  EXPECT_THROW(catalogue().jobs.erase(full.id, now()), DbError);
  EXPECT_EQ(catalogue().jobs.deleting_jobs()[0].id, one.id) << "the order of deletion";
  catalogue().jobs.erase(one.id, now());
  catalogue().jobs.erase(full.id, now());
  EXPECT_FALSE(catalogue().points.chain(vm.context_id, "1", 0, std::nullopt));
  EXPECT_EQ(ids({}), Ids{});
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

}  // namespace
}  // namespace engine
