// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/jobs/core.h"

namespace engine {

/// The facade over the control thread: every call posts a coroutine there and waits for its end.
///
/// start() before anything is served, stop() before the threads, the server and the node client go.
class EngineImpl final : public Engine {
 public:
  EngineImpl(EngineParts parts, EngineOptions options);
  ~EngineImpl() override;

  /// Takes catalogue and repositories for itself, recovers, and begins to watch. Throws with a
  /// sentence when varve cannot run here.
  void start();

  /// Restore points, for the server that is to export them; until the server has stopped.
  nbd::ExportSource& restore_exports() { return core_.restores; }

  /// Takes over what may change while varve runs: timeouts, commits, space, the scrub, named
  /// secrets. What is under way keeps what it was begun with; the rest of `options` is left alone.
  void change(const EngineOptions& options);

  /// On the control thread.
  size_t running_jobs() const { return core_.jobs.size(); }
  /// The cause by id. Any thread. Unlike health(), which is what somebody wants to know and keeps
  /// the trials of the catalogue going, this may be asked all the time.
  std::map<std::string, std::string> unavailable_repositories() const;

  /// New jobs are refused, running ones failed, finalizing ones finished; returns when all is at
  /// rest. May be called again.
  void stop();

  BackupView start_backup(const StartBackup& request) override;
  CompletedDisk complete(const CompleteDisk& request) override;
  void cancel(const std::string& backup_id, const std::string& reason) override;
  DeletedBackup delete_backup(const std::string& backup_id, bool cascade) override;
  BackupView backup(const std::string& backup_id) override;
  std::vector<BackupDiskView> backup_disks(const std::string& backup_id) override;
  BackupList list_backups(const BackupFilter& filter) override;
  std::vector<BackupDay> backup_days(const BackupDaysQuery& query) override;
  BackupStats backup_stats(const std::string& vm_name, const std::string& repository_id) override;
  ChainView chain(const ChainQuery& query) override;
  std::vector<PointView> points(const PointQuery& query) override;
  ChangesView changes(const ChangesQuery& query) override;

  RestoreView create_restore(const NewRestore& request) override;
  std::vector<RestoreView> restores() override;
  RestoreView restore(const std::string& id) override;
  void drop_restore(const std::string& id) override;
  RestoreView promote_restore(const std::string& id, const NewPromotion& request) override;
  RestoreView cancel_promotion(const std::string& id) override;
  Verification verify(const NewVerification& request) override;
  std::vector<Verification> verifications() override;
  Verification verification(const std::string& id) override;
  Verification cancel_verification(const std::string& id) override;
  WantedView wanted(const WantedQuery& query) override;

  ChangeIdAnswer change_id(const ChangeIdQuery& query) override;
  ChangeIdAnswer change_id_by_path(const ChangeIdByPathQuery& query) override;
  void record_telemetry(const std::string& job_id, const Telemetry& report) override;
  TelemetryHistory telemetry_history(const std::string& job_id, uint64_t limit) override;

  RepositoryView create_repository(const NewRepository& request) override;
  std::vector<RepositoryView> repositories(const RepositoryFilter& filter) override;
  RepositoryView repository(const std::string& id) override;
  void delete_repository(const std::string& id) override;
  StorageInfo repository_storage(const std::string& id) override;
  RepositoryTest test_repository(const NewRepository& request) override;
  RepositoryTest test_repository(const std::string& id) override;
  StorageRefresh refresh_storage() override;

  std::vector<ListedVm> vms() override;
  PutVmResult put_vm(const PutVmContext& request) override;
  VmView vm(const std::string& vm_name) override;
  VmView vm_by_context_id(const std::string& context_id) override;
  std::vector<VmDisk> vm_disks(const std::string& context_id_or_name) override;
  std::string delete_vm(const std::string& vm_name) override;

  std::vector<ExportView> exports() override;
  PortsStatus ports() override;
  HealthView health() const noexcept override;
  MetricsSnapshot metrics() override;

 private:
  template <class MakeTask>
  auto ask(MakeTask make_task);
  /// The same for an answer that needs no waiting there.
  template <class F>
  auto ask_now(F f);

  io::Task<void> start_there();
  io::Task<void> stop_there();

  Core core_;
  io::TaskScope watch_;
  uint32_t calls_ = 0;    // under way, of the control thread
  bool stopped_ = false;  // of the thread that calls start() and stop()
  bool down_ = false;     // of the control thread
};

}  // namespace engine
