// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_impl.h"

#include <fmt/format.h>

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "engine/bring_up.h"
#include "engine/jobs/change_ids.h"
#include "engine/jobs/complete_job.h"
#include "engine/jobs/delete_job.h"
#include "engine/jobs/end_job.h"
#include "engine/jobs/job_view.h"
#include "engine/jobs/start_job.h"
#include "engine/jobs/telemetry.h"
#include "engine/promotions.h"
#include "engine/repositories.h"
#include "engine/restore/points.h"
#include "engine/restores.h"
#include "engine/service_state.h"
#include "engine/verifications.h"
#include "engine/vms.h"
#include "engine/wanted.h"
#include "io/call_on.h"
#include "io/outcome.h"

namespace engine {

/// Counted while it is under way, so that stop_there() can wait for all others.
template <class MakeTask>
auto EngineImpl::ask(MakeTask make_task) {
  const auto call = [&]() -> std::invoke_result_t<MakeTask&> {
    if (down_) throw refusals::shutting_down();
    struct UnderWay {
      uint32_t& calls;
      ~UnderWay() { --calls; }
    };
    const UnderWay counted{++calls_};
    co_return co_await make_task();
  };
  return io::call_and_wait(core_.parts.home.executor, call);
}

template <class F>
auto EngineImpl::ask_now(F f) {
  using T = std::invoke_result_t<F>;
  return ask([f = std::move(f)]() -> io::Task<T> { co_return f(); });
}

namespace {

void note_refusal(Tally& tally, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Refusal& refusal) {
    ++tally.start_refusals[refusal.code];
  } catch (...) {  // a failure is in the log
  }
}

}  // namespace

EngineImpl::EngineImpl(EngineParts parts, EngineOptions options)
    : core_(std::move(parts), std::move(options)) {}

EngineImpl::~EngineImpl() = default;

void EngineImpl::change(const EngineOptions& options) {
  ask_now([&] { change_options(core_, options); });
}

void EngineImpl::start() {
  ask([this] { return start_there(); });
}

void EngineImpl::stop() {
  if (std::exchange(stopped_, true)) return;
  core_.shutting_down = true;
  ask([this] { return stop_there(); });
}

BackupView EngineImpl::start_backup(const StartBackup& request) {
  return ask([this, request]() -> io::Task<BackupView> {
    io::Outcome<Job> started = co_await io::attempt([&] { return start_job(core_, request); });
    if (started.failed()) note_refusal(core_.tally, started.failure());
    co_return job_view(core_.jobs, core_.now(), started.take());
  });
}

CompletedDisk EngineImpl::complete(const CompleteDisk& request) {
  return ask([this, request] { return complete_job(core_, request); });
}

void EngineImpl::cancel(const std::string& backup_id, const std::string& reason) {
  ask([this, backup_id, reason] { return cancel_job(core_, backup_id, reason); });
}

DeletedBackup EngineImpl::delete_backup(const std::string& backup_id, bool cascade) {
  return ask([this, backup_id, cascade] { return delete_job(core_, backup_id, cascade); });
}

BackupView EngineImpl::backup(const std::string& backup_id) {
  return ask_now([&] { return backup_view(core_, backup_id); });
}

std::vector<BackupDiskView> EngineImpl::backup_disks(const std::string& backup_id) {
  return ask_now([&] { return backup_disk_views(core_, backup_id); });
}

BackupList EngineImpl::list_backups(const BackupFilter& filter) {
  return ask_now([&] { return backup_list(core_, filter); });
}

std::vector<BackupDay> EngineImpl::backup_days(const BackupDaysQuery& query) {
  return ask_now([&] { return core_.catalogue->jobs.by_day(query, core_.now()); });
}

BackupStats EngineImpl::backup_stats(const std::string& vm_name, const std::string& repository_id) {
  return ask_now([&] { return backup_stats_of(*core_.catalogue, vm_name, repository_id); });
}

ChainView EngineImpl::chain(const ChainQuery& query) {
  return ask_now([&] { return chain_view(core_, query); });
}

std::vector<PointView> EngineImpl::points(const PointQuery& query) {
  return ask_now([&] { return point_views(*core_.catalogue, core_.options, core_.now(), query); });
}

ChangesView EngineImpl::changes(const ChangesQuery& query) {
  return ask([this, query] { return core_.restores.changes(query); });
}

RestoreView EngineImpl::create_restore(const NewRestore& request) {
  return ask([this, request] { return engine::create_restore(core_, request); });
}

std::vector<RestoreView> EngineImpl::restores() {
  return ask([this] { return restore_views(core_); });
}

RestoreView EngineImpl::restore(const std::string& id) {
  return ask([this, id] { return restore_view(core_, id); });
}

void EngineImpl::drop_restore(const std::string& id) {
  ask([this, id] { return engine::drop_restore(core_, id); });
}

RestoreView EngineImpl::promote_restore(const std::string& id, const NewPromotion& request) {
  return ask([this, id, request]() -> io::Task<RestoreView> {
    co_await engine::promote_restore(core_, id, request);
    co_return co_await restore_view(core_, id);
  });
}

RestoreView EngineImpl::cancel_promotion(const std::string& id) {
  return ask([this, id]() -> io::Task<RestoreView> {
    co_await engine::cancel_promotion(core_, id);
    co_return co_await restore_view(core_, id);
  });
}

Verification EngineImpl::verify(const NewVerification& request) {
  return ask([this, request] { return begin_verification(core_, request); });
}

std::vector<Verification> EngineImpl::verifications() {
  return ask_now([&] { return list_verifications(core_.verifications); });
}

Verification EngineImpl::verification(const std::string& id) {
  return ask_now([&] { return find_verification(core_.verifications, id); });
}

Verification EngineImpl::cancel_verification(const std::string& id) {
  return ask([this, id] { return engine::cancel_verification(core_, id); });
}

WantedView EngineImpl::wanted(const WantedQuery& query) {
  return ask([this, query] { return engine::wanted(core_, query); });
}

ChangeIdAnswer EngineImpl::change_id(const ChangeIdQuery& query) {
  return ask_now([&] { return answer_change_id(*core_.catalogue, core_.jobs, query); });
}

ChangeIdAnswer EngineImpl::change_id_by_path(const ChangeIdByPathQuery& query) {
  return ask_now([&] { return answer_change_id(*core_.catalogue, core_.jobs, query); });
}

void EngineImpl::record_telemetry(const std::string& job_id, const Telemetry& report) {
  ask([this, job_id, report] { return engine::record_telemetry(core_, job_id, report); });
}

TelemetryHistory EngineImpl::telemetry_history(const std::string& job_id, uint64_t limit) {
  return ask_now([&] { return engine::telemetry_history(core_, job_id, limit); });
}

RepositoryView EngineImpl::create_repository(const NewRepository& request) {
  return ask([this, request] { return engine::create_repository(core_, request); });
}

std::vector<RepositoryView> EngineImpl::repositories(const RepositoryFilter& filter) {
  return ask_now([&] { return list_repositories(core_, filter); });
}

RepositoryView EngineImpl::repository(const std::string& id) {
  return ask_now([&] { return find_repository(core_, id); });
}

void EngineImpl::delete_repository(const std::string& id) {
  ask([this, id]() -> io::Task<void> {
    engine::delete_repository(core_, id);
    co_return;
  });
}

StorageInfo EngineImpl::repository_storage(const std::string& id) {
  return ask([this, id] { return measure_repository(core_, id); });
}

RepositoryTest EngineImpl::test_repository(const NewRepository& request) {
  return ask([this, request] { return engine::test_repository(core_, request); });
}

RepositoryTest EngineImpl::test_repository(const std::string& id) {
  return ask([this, id] { return engine::test_repository(core_, id); });
}

StorageRefresh EngineImpl::refresh_storage() {
  return ask([this] { return engine::refresh_storage(core_); });
}

std::vector<ListedVm> EngineImpl::vms() {
  return ask_now([&] { return list_vms(core_); });
}

PutVmResult EngineImpl::put_vm(const PutVmContext& request) {
  return ask([this, request] { return engine::put_vm(core_, request); });
}

VmView EngineImpl::vm(const std::string& vm_name) {
  return ask_now([&] { return vm_view(core_, vm_name); });
}

VmView EngineImpl::vm_by_context_id(const std::string& context_id) {
  return ask_now([&] { return vm_view_by_context(core_, context_id); });
}

std::vector<VmDisk> EngineImpl::vm_disks(const std::string& context_id_or_name) {
  return ask_now([&] { return disks_of_vm(*core_.catalogue, context_id_or_name); });
}

std::string EngineImpl::delete_vm(const std::string& vm_name) {
  return ask([this, vm_name] { return engine::delete_vm(core_, vm_name); });
}

std::vector<ExportView> EngineImpl::exports() {
  return ask_now([&] { return export_views(core_); });
}

PortsStatus EngineImpl::ports() {
  return ask_now([&] { return core_.ports.status(); });
}

HealthView EngineImpl::health() const noexcept {
  core_.health_was_asked = true;
  return {.catalogue_open = core_.catalogue_open,
          .recovered = core_.recovered,
          .shutting_down = core_.shutting_down,
          .unavailable_repositories = core_.availability.causes(),
          .catalogue_writable = core_.catalogue_writable};
}

std::map<std::string, std::string> EngineImpl::unavailable_repositories() const {
  return core_.availability.causes();
}

MetricsSnapshot EngineImpl::metrics() {
  MetricsSnapshot snapshot = ask_now([&] { return metrics_snapshot(core_); });
  snapshot.ready = health().ready();
  return snapshot;
}

}  // namespace engine
