// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/catalogue/columns.h"
#include "engine/values/types.h"

/// The tables of schema.cc as the structs of types.h. A new column is one line here, its member,
/// and its migration.
namespace engine {

/// Of row `vm`: when the newest backup was completed of which neither an image nor one that it
/// stands on was found damaged, and the newest of these of which every image was found sound. A VM
/// has one job at a time, so the newest by its beginning is the newest by its end. Each has an
/// index: job_good, job_proven.
inline constexpr std::string_view kLastGoodAt =
    "(SELECT j.completed_at FROM job j WHERE j.context_id = vm.context_id"
    " AND j.state = 'completed' AND j.deleting = 0 AND j.distrusted = 0"
    " ORDER BY j.created_at DESC, j.row DESC LIMIT 1)";
inline constexpr std::string_view kLastVerifiedAt =
    "(SELECT j.completed_at FROM job j WHERE j.context_id = vm.context_id"
    " AND j.state = 'completed' AND j.deleting = 0 AND j.distrusted = 0 AND j.proven = 1"
    " ORDER BY j.created_at DESC, j.row DESC LIMIT 1)";

inline std::string_view inventory_name_of(const Vm& vm) { return inventory_name(vm.vm_path); }

/// A VM has one active job at most, so its jobs end in the order in which they began, for which
/// there is an index.
inline constexpr auto kVmTable = columns<Vm>(
    col("context_id", &Vm::context_id), col("vm_name", &Vm::vm_name),
    col("safe_name", &Vm::safe_name), col("vm_path", &Vm::vm_path),
    computed("inventory_name", inventory_name_of), col("vcenter_host", &Vm::vcenter_host),
    nested(&Vm::credentials, columns<CredentialsRef>(col("credentials_kind", &CredentialsRef::kind),
                                                     col("credentials_ref", &CredentialsRef::ref))),
    col("vmware_vm_id", &Vm::vmware_vm_id), col("datacenter", &Vm::datacenter),
    col("power_state", &Vm::power_state), col("os_type", &Vm::os_type),
    col("expected_interval_seconds", &Vm::expected_interval_seconds),
    col("created_at", &Vm::created_at), col("updated_at", &Vm::updated_at),
    derived("(SELECT sum(total_backups_run) FROM backup_context b"
            " WHERE b.context_id = vm.context_id)",
            &Vm::total_jobs_run),
    derived("(SELECT sum(successful_backups) FROM backup_context b"
            " WHERE b.context_id = vm.context_id)",
            &Vm::successful_jobs),
    derived("(SELECT sum(failed_backups) FROM backup_context b WHERE b.context_id = vm.context_id)",
            &Vm::failed_jobs),
    derived("(SELECT min(j.created_at) FROM job j WHERE j.context_id = vm.context_id)",
            &Vm::first_job_at),
    derived("(SELECT max(j.created_at) FROM job j WHERE j.context_id = vm.context_id)",
            &Vm::last_job_at),
    derived("(SELECT j.id FROM job j WHERE j.context_id = vm.context_id"
            " AND j.state IN ('preparing', 'running', 'finalizing'))",
            &Vm::current_job_id),
    derived("coalesce((SELECT CASE j.state WHEN 'completed' THEN 'completed' ELSE 'failed' END"
            " FROM job j WHERE j.context_id = vm.context_id"
            " AND j.state IN ('completed', 'failed', 'cancelled')"
            " ORDER BY j.created_at DESC, j.row DESC LIMIT 1), 'discovered')",
            &Vm::current_status),
    derived("(SELECT j.completed_at FROM job j WHERE j.context_id = vm.context_id"
            " AND j.state IN ('completed', 'failed', 'cancelled')"
            " ORDER BY j.created_at DESC, j.row DESC LIMIT 1)",
            &Vm::last_status_change),
    derived("(SELECT j.id FROM job j WHERE j.context_id = vm.context_id"
            " AND j.state = 'completed' AND j.deleting = 0"
            " ORDER BY j.created_at DESC, j.row DESC LIMIT 1)",
            &Vm::last_successful_job_id),
    derived(kLastGoodAt, &Vm::last_good_at), derived(kLastVerifiedAt, &Vm::last_verified_at));

/// The same, without what a look at all VMs does not need.
inline constexpr auto kVmAgeTable =
    columns<Vm>(col("context_id", &Vm::context_id), col("vm_name", &Vm::vm_name),
                col("expected_interval_seconds", &Vm::expected_interval_seconds),
                col("created_at", &Vm::created_at), derived(kLastGoodAt, &Vm::last_good_at),
                derived(kLastVerifiedAt, &Vm::last_verified_at));

inline constexpr auto kVmDiskTable = columns<VmDisk>(
    derived("id", &VmDisk::id), col("context_id", &VmDisk::context_id),
    col("disk_key", &VmDisk::key), col("disk_index", &VmDisk::index),
    col("capacity_bytes", &VmDisk::capacity_bytes), col("unit_number", &VmDisk::unit_number),
    col("label", &VmDisk::label), col("vmdk_path", &VmDisk::vmdk_path),
    col("datastore", &VmDisk::datastore), col("removed", &VmDisk::removed),
    col("created_at", &VmDisk::created_at), col("updated_at", &VmDisk::updated_at),
    // Its definition stands in the view only.
    derived("(SELECT v.disk_change_id FROM vm_disks v WHERE v.id = vm_disk.id)",
            &VmDisk::change_id));

inline constexpr auto kStorageMeasure =
    columns<StorageMeasure>(col("measured_at", &StorageMeasure::measured_at),
                            col("total_bytes", &StorageMeasure::total_bytes),
                            col("used_bytes", &StorageMeasure::used_bytes),
                            col("available_bytes", &StorageMeasure::available_bytes));

inline constexpr auto kRepositoryTable = columns<Repository>(
    col("id", &Repository::id), col("name", &Repository::name), col("type", &Repository::type),
    col("enabled", &Repository::enabled), col("config", &Repository::config_json),
    col("directory", &Repository::directory), col("marker_id", &Repository::marker_id),
    col("is_immutable", &Repository::is_immutable),
    col("min_retention_days", &Repository::min_retention_days),
    nested(&Repository::storage, kStorageMeasure), col("created_at", &Repository::created_at),
    col("updated_at", &Repository::updated_at));

inline constexpr auto kTelemetryState =
    columns<TelemetryState>(col("current_phase", &TelemetryState::current_phase),
                            col("bytes_transferred", &TelemetryState::bytes_transferred),
                            col("total_bytes", &TelemetryState::total_bytes),
                            col("transfer_speed_bps", &TelemetryState::transfer_speed_bps),
                            col("eta_seconds", &TelemetryState::eta_seconds),
                            col("progress_percent", &TelemetryState::progress_percent),
                            col("last_telemetry_at", &TelemetryState::last_at));

inline constexpr auto kJobTable = columns<Job>(
    col("id", &Job::id), col("context_id", &Job::context_id), col("vm_name", &Job::vm_name),
    col("repository_id", &Job::repository_id), col("policy_id", &Job::policy_id),
    col("vm_path", &Job::vm_path), col("vcenter_host", &Job::vcenter_host),
    col("vmware_vm_id", &Job::vmware_vm_id), col("type", &Job::type), col("client", &Job::client),
    col("state", &Job::state), col("tags", &Job::tags), col("nbd_targets", &Job::nbd_targets),
    col("error_message", &Job::error_message), col("created_at", &Job::created_at),
    col("started_at", &Job::started_at), col("completed_at", &Job::completed_at),
    col("decided_at", &Job::decided_at), nested(&Job::telemetry, kTelemetryState),
    col("warnings", &Job::warnings), col("deleting", &Job::deleting),
    col("keep_partial", &Job::keep_partial), col("resumes", &Job::resumes),
    col("kept", &Job::kept));

inline constexpr auto kDiskCounters =
    columns<DiskCounters>(col("bytes_received", &DiskCounters::bytes_received),
                          col("bytes_zeroed", &DiskCounters::bytes_zeroed),
                          col("bytes_elided", &DiskCounters::bytes_elided),
                          col("bytes_stored", &DiskCounters::bytes_stored),
                          col("covered_bytes", &DiskCounters::covered_bytes),
                          col("sampled_zero_requests", &DiskCounters::sampled_zero_requests),
                          col("sampled_zero_bytes", &DiskCounters::sampled_zero_bytes),
                          col("judged_bytes", &DiskCounters::judged_bytes),
                          col("incompressible_bytes", &DiskCounters::incompressible_bytes),
                          col("zero_data_bytes", &DiskCounters::zero_data_bytes),
                          col("resumed_bytes", &DiskCounters::resumed_bytes));

/// Without `sidecar`, which stands there from the decision to the publish only.
inline constexpr auto kJobDiskTable = columns<JobDisk>(
    derived("id", &JobDisk::id), col("job_id", &JobDisk::job_id),
    col("disk_index", &JobDisk::index), col("disk_key", &JobDisk::key),
    col("capacity_bytes", &JobDisk::capacity_bytes), col("unit_number", &JobDisk::unit_number),
    col("vmdk_path", &JobDisk::vmdk_path), col("datastore", &JobDisk::datastore),
    col("state", &JobDisk::state), col("type", &JobDisk::type), col("image_id", &JobDisk::image_id),
    col("image_uuid", &JobDisk::image_uuid), col("image_path", &JobDisk::image_path),
    col("parent_image_id", &JobDisk::parent_image_id),
    col("parent_job_id", &JobDisk::parent_job_id),
    col("parent_change_id", &JobDisk::parent_change_id),
    col("handed_out_change_id", &JobDisk::handed_out_change_id),
    col("change_id", &JobDisk::change_id), col("export_name", &JobDisk::export_name),
    col("port", &JobDisk::port), nested(&JobDisk::counters, kDiskCounters),
    col("ever_connected", &JobDisk::ever_connected), col("file_bytes", &JobDisk::file_bytes),
    col("allocated_bytes", &JobDisk::allocated_bytes), col("sums_sha256", &JobDisk::sums_sha256),
    col("parent_root", &JobDisk::parent_root),
    nested(&JobDisk::place, columns<ChainPlace>(col("generation", &ChainPlace::generation),
                                                col("position", &ChainPlace::position))),
    col("error_message", &JobDisk::error_message), col("created_at", &JobDisk::created_at),
    col("completed_at", &JobDisk::completed_at));

/// Of point `p`, its disk `d` and its job `j`.
inline constexpr auto kPointColumns = columns<Point>(
    col("d.image_id", &Point::image_id), col("d.image_path", &Point::image_path),
    col("j.id", &Point::job_id), col("j.context_id", &Point::context_id),
    col("j.vm_name", &Point::vm_name), col("j.repository_id", &Point::repository_id),
    col("d.disk_index", &Point::disk_index), col("d.disk_key", &Point::disk_key),
    nested(&Point::place, columns<ChainPlace>(col("d.generation", &ChainPlace::generation),
                                              col("p.position", &ChainPlace::position))),
    col("d.type", &Point::type), col("d.capacity_bytes", &Point::capacity_bytes),
    col("d.change_id", &Point::change_id), col("d.parent_image_id", &Point::parent_image_id),
    col("d.parent_job_id", &Point::parent_job_id), col("d.file_bytes", &Point::file_bytes),
    col("d.allocated_bytes", &Point::allocated_bytes), col("d.bytes_stored", &Point::bytes_stored),
    nested(&Point::counters,
           columns<DiskCounters>(col("d.bytes_received", &DiskCounters::bytes_received),
                                 col("d.bytes_zeroed", &DiskCounters::bytes_zeroed),
                                 col("d.bytes_elided", &DiskCounters::bytes_elided),
                                 col("d.bytes_stored", &DiskCounters::bytes_stored),
                                 col("d.judged_bytes", &DiskCounters::judged_bytes),
                                 col("d.incompressible_bytes", &DiskCounters::incompressible_bytes),
                                 col("d.zero_data_bytes", &DiskCounters::zero_data_bytes))),
    col("j.warnings", &Point::warnings), col("j.created_at", &Point::created_at),
    col("j.completed_at", &Point::completed_at),
    derived("(SELECT v.verified_at FROM verification v WHERE v.image_id = d.image_id)",
            &Point::verified_at),
    derived("coalesce((SELECT v.result FROM verification v WHERE v.image_id = d.image_id), '')",
            &Point::verification));

inline constexpr auto kPromotionTable = columns<Promotion>(
    col("restore_id", &Promotion::restore_id), col("path", &Promotion::path),
    col("format", &Promotion::format), col("state", &Promotion::state),
    col("total_bytes", &Promotion::total_bytes), col("copied_bytes", &Promotion::copied_bytes),
    col("error", &Promotion::error), col("started_at", &Promotion::started_at),
    col("ended_at", &Promotion::ended_at));

inline constexpr auto kRestoreTable = columns<Restore>(
    col("id", &Restore::id), col("job_id", &Restore::job_id),
    derived("(SELECT vm_name FROM job WHERE job.id = restore.job_id)", &Restore::vm_name),
    derived("(SELECT context_id FROM job WHERE job.id = restore.job_id)", &Restore::context_id),
    derived("(SELECT repository_id FROM job WHERE job.id = restore.job_id)",
            &Restore::repository_id),
    col("mode", &Restore::mode), col("state", &Restore::state),
    col("created_at", &Restore::created_at), col("expires_at", &Restore::expires_at),
    col("size_limit_bytes", &Restore::size_limit_bytes));

inline constexpr auto kRestoreDiskTable = columns<RestoreDisk>(
    col("restore_id", &RestoreDisk::restore_id), col("disk_index", &RestoreDisk::disk_index),
    col("image_id", &RestoreDisk::image_id), col("export_name", &RestoreDisk::export_name),
    derived("(SELECT d.image_path FROM job_disk d WHERE d.image_id = restore_disk.image_id)",
            &RestoreDisk::path));

inline constexpr auto kVerificationTable = columns<ImageVerification>(
    col("image_id", &ImageVerification::image_id),
    derived("(SELECT d.job_id FROM job_disk d WHERE d.image_id = verification.image_id)",
            &ImageVerification::job_id),
    derived("(SELECT j.vm_name FROM job j, job_disk d"
            " WHERE d.image_id = verification.image_id AND j.id = d.job_id)",
            &ImageVerification::vm_name),
    derived("(SELECT d.disk_index FROM job_disk d WHERE d.image_id = verification.image_id)",
            &ImageVerification::disk_index),
    col("verified_at", &ImageVerification::verified_at), col("result", &ImageVerification::result),
    col("data_bytes", &ImageVerification::data_bytes),
    col("zero_bytes", &ImageVerification::zero_bytes),
    col("damaged_bytes", &ImageVerification::damaged_bytes),
    col("problem", &ImageVerification::problem), col("damaged", &ImageVerification::damaged),
    col("second_reader", &ImageVerification::second_reader));

inline constexpr auto kSampleColumns = columns<ProgressSample>(
    col("seconds", &ProgressSample::seconds),
    col("bytes_per_second", &ProgressSample::bytes_per_second),
    col("percent", &ProgressSample::percent), col("phase", &ProgressSample::phase),
    col("source", &ProgressSample::source));

}  // namespace engine
