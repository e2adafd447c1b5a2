// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>

#include "engine/engine.h"

namespace api_tests {

/// An engine that only says what a test told it to say. Its functions are compiled in
/// mock_engine.cc alone: gmock's templates for all of them cost a quarter of a minute.
class MockEngine : public engine::Engine {
 public:
  MockEngine();
  ~MockEngine() override;
  MOCK_METHOD(engine::BackupView, start_backup, (const engine::StartBackup&), (override));
  MOCK_METHOD(engine::CompletedDisk, complete, (const engine::CompleteDisk&), (override));
  MOCK_METHOD(void, cancel, (const std::string&, const std::string&), (override));
  MOCK_METHOD(engine::DeletedBackup, delete_backup, (const std::string&, bool), (override));
  MOCK_METHOD(engine::BackupView, backup, (const std::string&), (override));
  MOCK_METHOD(std::vector<engine::BackupDiskView>, backup_disks, (const std::string&), (override));
  MOCK_METHOD(engine::BackupList, list_backups, (const engine::BackupFilter&), (override));
  MOCK_METHOD(std::vector<engine::BackupDay>, backup_days, (const engine::BackupDaysQuery&),
              (override));
  MOCK_METHOD(engine::BackupStats, backup_stats, (const std::string&, const std::string&),
              (override));
  MOCK_METHOD(engine::ChainView, chain, (const engine::ChainQuery&), (override));
  MOCK_METHOD(std::vector<engine::PointView>, points, (const engine::PointQuery&), (override));
  MOCK_METHOD(engine::ChangesView, changes, (const engine::ChangesQuery&), (override));
  MOCK_METHOD(engine::RestoreView, create_restore, (const engine::NewRestore&), (override));
  MOCK_METHOD(std::vector<engine::RestoreView>, restores, (), (override));
  MOCK_METHOD(engine::RestoreView, restore, (const std::string&), (override));
  MOCK_METHOD(void, drop_restore, (const std::string&), (override));
  MOCK_METHOD(engine::RestoreView, promote_restore,
              (const std::string&, const engine::NewPromotion&), (override));
  MOCK_METHOD(engine::RestoreView, cancel_promotion, (const std::string&), (override));
  MOCK_METHOD(engine::Verification, verify, (const engine::NewVerification&), (override));
  MOCK_METHOD(std::vector<engine::Verification>, verifications, (), (override));
  MOCK_METHOD(engine::Verification, verification, (const std::string&), (override));
  MOCK_METHOD(engine::Verification, cancel_verification, (const std::string&), (override));
  MOCK_METHOD(engine::WantedView, wanted, (const engine::WantedQuery&), (override));
  MOCK_METHOD(engine::ChangeIdAnswer, change_id, (const engine::ChangeIdQuery&), (override));
  MOCK_METHOD(engine::ChangeIdAnswer, change_id_by_path, (const engine::ChangeIdByPathQuery&),
              (override));
  MOCK_METHOD(void, record_telemetry, (const std::string&, const engine::Telemetry&), (override));
  MOCK_METHOD(engine::TelemetryHistory, telemetry_history, (const std::string&, uint64_t),
              (override));
  MOCK_METHOD(engine::RepositoryView, create_repository, (const engine::NewRepository&),
              (override));
  MOCK_METHOD(std::vector<engine::RepositoryView>, repositories, (const engine::RepositoryFilter&),
              (override));
  MOCK_METHOD(engine::RepositoryView, repository, (const std::string&), (override));
  MOCK_METHOD(void, delete_repository, (const std::string&), (override));
  MOCK_METHOD(engine::StorageInfo, repository_storage, (const std::string&), (override));
  MOCK_METHOD(engine::RepositoryTest, test_repository, (const engine::NewRepository&), (override));
  MOCK_METHOD(engine::RepositoryTest, test_repository, (const std::string&), (override));
  MOCK_METHOD(engine::StorageRefresh, refresh_storage, (), (override));
  MOCK_METHOD(std::vector<engine::ListedVm>, vms, (), (override));
  MOCK_METHOD(engine::PutVmResult, put_vm, (const engine::PutVmContext&), (override));
  MOCK_METHOD(engine::VmView, vm, (const std::string&), (override));
  MOCK_METHOD(engine::VmView, vm_by_context_id, (const std::string&), (override));
  MOCK_METHOD(std::vector<engine::VmDisk>, vm_disks, (const std::string&), (override));
  MOCK_METHOD(std::string, delete_vm, (const std::string&), (override));
  MOCK_METHOD(std::vector<engine::ExportView>, exports, (), (override));
  MOCK_METHOD(engine::PortsStatus, ports, (), (override));
  MOCK_METHOD(engine::HealthView, health, (), (const, noexcept, override));
  MOCK_METHOD(engine::MetricsSnapshot, metrics, (), (override));
};

}  // namespace api_tests

extern template class testing::NiceMock<api_tests::MockEngine>;
