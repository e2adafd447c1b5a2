// SPDX-License-Identifier: Apache-2.0
#include "sample_engine.h"

#include "samples.h"

namespace api_tests {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Return;
using ::testing::Throw;

void backups(::testing::NiceMock<MockEngine>& engine) {
  const auto unknown = engine::refusals::backup_not_found("backup-x-1");
  ON_CALL(engine, start_backup).WillByDefault(Return(running_backup()));
  ON_CALL(engine, complete)
      .WillByDefault(Return(engine::CompletedDisk{1, engine::JobState::completed, 2, 2}));
  ON_CALL(engine, delete_backup)
      .WillByDefault(Return(engine::DeletedBackup{{"backup-pgtest1-1759913694"}, 47255552}));
  ON_CALL(engine, backup(_)).WillByDefault(Return(completed_backup()));
  ON_CALL(engine, backup(HasSubstr("backup-x-"))).WillByDefault(Throw(unknown));
  ON_CALL(engine, backup(HasSubstr("failed"))).WillByDefault(Return(failed_backup()));
  ON_CALL(engine, backup_disks).WillByDefault(Return(std::vector{backup_disk()}));
  ON_CALL(engine, list_backups).WillByDefault(Return(engine::BackupList{{completed_backup()}, 1}));
  ON_CALL(engine, backup_days)
      .WillByDefault(
          Return(std::vector{engine::BackupDay{sample_time() - std::chrono::days(1), 12,
                                               109521666048, 9663676416, 1840},
                             engine::BackupDay{sample_time(), 11, 7516192768, 644245094, 512}}));
  ON_CALL(engine, backup_stats)
      .WillByDefault(Return(engine::BackupStats{3, 20401094656, sample_time()}));
  ON_CALL(engine, chain).WillByDefault([](const engine::ChainQuery& query) {
    if (query.vm_name != "pgtest2") return chain();
    engine::ChainView empty;
    empty.context_id = "ctx-pgtest2-20251008-085454";
    empty.vm_name = "pgtest2";
    empty.repository_id = "1";
    return empty;
  });
  ON_CALL(engine, create_restore).WillByDefault(Return(restore()));
  ON_CALL(engine, restores).WillByDefault(Return(std::vector{restore()}));
  ON_CALL(engine, restore).WillByDefault(Return(restore()));
  ON_CALL(engine, promote_restore).WillByDefault(Return(promoted()));
  ON_CALL(engine, cancel_promotion).WillByDefault([] {
    engine::RestoreView view = promoted();
    view.restore.promotion->state = engine::PromotionState::cancelled;
    view.restore.promotion->ended_at =
        view.restore.promotion->started_at + std::chrono::seconds(30);
    return view;
  });
  ON_CALL(engine, verify).WillByDefault(Return(verification(engine::VerificationState::running)));
  ON_CALL(engine, verification).WillByDefault(Return(verification()));
  ON_CALL(engine, verifications).WillByDefault(Return(std::vector{verification()}));
  ON_CALL(engine, cancel_verification)
      .WillByDefault(Return(verification(engine::VerificationState::cancelled)));
  ON_CALL(engine, wanted).WillByDefault(Return(wanted()));
  ON_CALL(engine, changes).WillByDefault(Return(changes()));
  ON_CALL(engine, points).WillByDefault(Return(std::vector{point()}));
  const engine::ChangeIdAnswer change_id{kChangeId, "backup-pgtest1-1759913694", false};
  ON_CALL(engine, change_id).WillByDefault(Return(change_id));
  ON_CALL(engine, change_id_by_path).WillByDefault(Return(change_id));
  ON_CALL(engine, telemetry_history).WillByDefault(Return(telemetry_history()));
}

void setup(::testing::NiceMock<MockEngine>& engine) {
  const engine::RepositoryTest passed{true, storage(), ""};
  ON_CALL(engine, create_repository).WillByDefault(Return(repository()));
  ON_CALL(engine, repositories).WillByDefault(Return(std::vector{repository()}));
  ON_CALL(engine, repository).WillByDefault(Return(repository()));
  ON_CALL(engine, repository_storage).WillByDefault(Return(storage()));
  ON_CALL(engine, test_repository(::testing::An<const std::string&>()))
      .WillByDefault(Return(passed));
  ON_CALL(engine, test_repository(::testing::An<const engine::NewRepository&>()))
      .WillByDefault(
          Return(engine::RepositoryTest{false, std::nullopt, "open /backup/new: No such file"}));
  ON_CALL(engine, refresh_storage).WillByDefault(Return(engine::StorageRefresh{1, 0}));
  ON_CALL(engine, vms).WillByDefault(Return(std::vector{listed_vm()}));
  ON_CALL(engine, put_vm).WillByDefault(Return(engine::PutVmResult{true, vm_view()}));
  ON_CALL(engine, vm).WillByDefault(Return(vm_view()));
  ON_CALL(engine, vm_by_context_id).WillByDefault([] {
    engine::VmView view = vm_view();
    view.current_job = running_backup();
    view.job_history = {running_backup(), failed_backup()};
    return view;
  });
  ON_CALL(engine, vm_disks).WillByDefault(Return(vm().disks));
  ON_CALL(engine, delete_vm).WillByDefault(Return(vm().context_id));
}

}  // namespace

void answer_with_samples(::testing::NiceMock<MockEngine>& engine) {
  backups(engine);
  setup(engine);
  ON_CALL(engine, exports).WillByDefault(Return(std::vector{ingest_export()}));
  ON_CALL(engine, ports).WillByDefault(Return(ports()));
  ON_CALL(engine, health).WillByDefault(Return(engine::HealthView{true, true, false}));
  ON_CALL(engine, metrics).WillByDefault(Return(metrics()));
}

}  // namespace api_tests
