// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/values/refusal.h"
#include "engine/values/requests.h"
#include "engine/values/types.h"
#include "engine/values/views.h"
#include "engine/values/wanted.h"

namespace engine {

/// The engine as everybody above it sees it: plain values in, plain values out.
///
/// Every method may be called on any thread except a ring's, blocks until its answer is there, and
/// runs beside any other. Two things are thrown: a Refusal, with the texts of docs/http-api.md,
/// where the text below names one (refusals::… of engine/values/refusal.h); and any other
/// std::exception for a failure, which api turns into the 500 of that endpoint with what() as its
/// cause. So an implementation wraps no failure by itself, except in start_backup and complete,
/// whose texts depend on the step.
class Engine {
 public:
  virtual ~Engine() = default;

  // ---- backups ----

  /// Everything is prepared and the node has accepted when this returns; anything else is
  /// rolled back first. Throws, in this order: vm_not_found, vm_ambiguous, no_disks,
  /// vm_disks_unreadable, repository_not_found, repository_disabled, repository_unavailable,
  /// backup_already_running, no_previous_backup, credentials_missing, credentials_unresolved,
  /// shutting_down, no_space, no_ports, chain_too_long, base_is_not_the_parent,
  /// backup_context_not_created, backup_job_not_created, disk_not_prepared, node_unreachable,
  /// node_refused. Answers within 15 s.
  virtual BackupView start_backup(const StartBackup& request) = 0;

  /// Returns once the disk is sealed, and after the last one once the job is published.
  /// A repeat returns the same again, after waiting for a seal that is under way. Throws
  /// job_not_found, job_not_running, change_id_conflict, disk_never_connected, complete_failed,
  /// backup_being_published.
  virtual CompletedDisk complete(const CompleteDisk& request) = 0;

  /// Returns once everything of the job is removed; also when it was cancelled before.
  /// `reason` may be "". Throws backup_not_found, job_not_running.
  virtual void cancel(const std::string& backup_id, const std::string& reason) = 0;

  /// Throws backup_not_found, backup_is_running, backup_has_dependents, backup_is_immutable,
  /// repository_unavailable, backup_is_in_use.
  virtual DeletedBackup delete_backup(const std::string& backup_id, bool cascade) = 0;

  /// Throws backup_not_found.
  virtual BackupView backup(const std::string& backup_id) = 0;
  /// Ascending index. Throws backup_not_found.
  virtual std::vector<BackupDiskView> backup_disks(const std::string& backup_id) = 0;
  /// Throws vm_not_found for a vm_name that no VM has.
  virtual BackupList list_backups(const BackupFilter& filter) = 0;
  /// Completed backups by the day on which they began, oldest first; days without one are left out.
  /// An unknown VM or repository has none.
  virtual std::vector<BackupDay> backup_days(const BackupDaysQuery& query) = 0;
  /// An unknown VM or repository has no backups.
  virtual BackupStats backup_stats(const std::string& vm_name,
                                   const std::string& repository_id) = 0;
  /// Throws vm_not_found, also for an unknown context id; vm_ambiguous.
  virtual ChainView chain(const ChainQuery& query) = 0;
  /// Newest first. Throws vm_not_found; point_not_found, when one is asked for.
  virtual std::vector<PointView> points(const PointQuery& query) = 0;
  /// Throws backup_not_found, job_not_found (no such disk), points_not_comparable.
  virtual ChangesView changes(const ChangesQuery& query) = 0;

  // ---- restores ----

  /// Throws backup_not_found, job_not_found (no such disk), backup_is_not_completed,
  /// repository_unavailable, no_space.
  virtual RestoreView create_restore(const NewRestore& request) = 0;
  virtual std::vector<RestoreView> restores() = 0;
  /// Throws restore_not_found; the next one too.
  virtual RestoreView restore(const std::string& id) = 0;
  /// Ends its connections and removes its overlays; a promotion of it is cancelled.
  virtual void drop_restore(const std::string& id) = 0;
  /// Begins to copy its disks. Throws restore_not_found, restore_is_not_ready, restore_is_in_use,
  /// promotion_path_invalid, promotion_path_exists, promotion_is_running, repository_unavailable.
  virtual RestoreView promote_restore(const std::string& id, const NewPromotion& request) = 0;
  /// Throws restore_not_found, promotion_is_not_running. Nothing of the copy is left, unless it was
  /// whole already, as the answer says then.
  virtual RestoreView cancel_promotion(const std::string& id) = 0;

  // ---- verification ----

  /// Begins to prove images one after the other. Throws backup_not_found, backup_is_not_completed,
  /// vm_context_not_found, verification_is_running.
  virtual Verification verify(const NewVerification& request) = 0;
  /// Since varve has started, newest first.
  virtual std::vector<Verification> verifications() = 0;
  /// Throws verification_not_found; the next one too.
  virtual Verification verification(const std::string& id) = 0;
  /// Returns once it has ended, or after 10 s: one whose storage hangs is still running then.
  virtual Verification cancel_verification(const std::string& id) = 0;
  /// What the last proofs say that the newest points of a VM lack. Throws vm_context_not_found,
  /// unknown_repository, repository_unavailable.
  virtual WantedView wanted(const WantedQuery& query) = 0;

  // ---- change ids and telemetry ----

  /// Changes no state except to record what was handed out. An unknown VM, an
  /// ambiguous one and one without a backup get "".
  virtual ChangeIdAnswer change_id(const ChangeIdQuery& query) = 0;
  virtual ChangeIdAnswer change_id_by_path(const ChangeIdByPathQuery& query) = 0;

  /// A report of an ended job changes nothing. Throws telemetry_job_not_found.
  virtual void record_telemetry(const std::string& job_id, const Telemetry& report) = 0;
  /// At most `limit` samples. Throws telemetry_job_not_found.
  virtual TelemetryHistory telemetry_history(const std::string& job_id, uint64_t limit) = 0;

  // ---- repositories ----

  /// Throws repository_config_invalid (a network type's mount point that is none, a
  /// directory that cannot be made), repository_name_taken, repository_id_taken.
  virtual RepositoryView create_repository(const NewRepository& request) = 0;
  virtual std::vector<RepositoryView> repositories(const RepositoryFilter& filter) = 0;
  /// Throws unknown_repository; the next two as well.
  virtual RepositoryView repository(const std::string& id) = 0;
  /// Throws repository_has_backups. Files stay.
  virtual void delete_repository(const std::string& id) = 0;
  /// Measured now. Throws repository_unavailable.
  virtual StorageInfo repository_storage(const std::string& id) = 0;
  /// Writes, fsyncs, reads and removes a file there. What goes wrong is an answer, not an error.
  virtual RepositoryTest test_repository(const NewRepository& request) = 0;
  /// Throws unknown_repository.
  virtual RepositoryTest test_repository(const std::string& id) = 0;
  virtual StorageRefresh refresh_storage() = 0;

  // ---- VM contexts ----

  /// By name.
  virtual std::vector<ListedVm> vms() = 0;
  /// Of a well-formed request. Throws vm_context_invalid, vm_backup_running,
  /// vm_of_other_vcenter.
  virtual PutVmResult put_vm(const PutVmContext& request) = 0;
  /// By registered name. Throws vm_context_not_found.
  virtual VmView vm(const std::string& vm_name) = 0;
  /// Throws vm_context_id_not_found.
  virtual VmView vm_by_context_id(const std::string& context_id) = 0;
  /// Ascending index, without removed ones. By context id or registered name. Throws
  /// vm_context_not_found.
  virtual std::vector<VmDisk> vm_disks(const std::string& context_id_or_name) = 0;
  /// Returns the context id. Throws vm_context_not_found, vm_has_backups.
  virtual std::string delete_vm(const std::string& vm_name) = 0;

  // ---- state ----

  /// By name.
  virtual std::vector<ExportView> exports() = 0;
  virtual PortsStatus ports() = 0;
  /// Reads flags and never waits for the engine, so that it answers under any load. Throws nothing.
  virtual HealthView health() const noexcept = 0;
  virtual MetricsSnapshot metrics() = 0;
};

}  // namespace engine
