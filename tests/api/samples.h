// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/values/views.h"
#include "engine/values/wanted.h"

/// The values of the examples: VM pgtest1, two disks, one full and one incremental.
namespace api_tests {

inline constexpr const char* kChangeId = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531";

/// 2025-10-08T08:54:54Z.
engine::Time sample_time();

/// As it is when POST answers.
engine::BackupView running_backup();
/// The same, completed.
engine::BackupView completed_backup();
/// With one disk, with every member that may be left out.
engine::BackupView failed_backup();
engine::BackupDiskView backup_disk();
engine::ChainView chain();
engine::PointView point();
engine::WantedView wanted();
engine::ChangesView changes();
engine::RestoreView restore();
/// The same, being promoted.
engine::RestoreView promoted();
/// Of a backup with a damaged parent; running: nothing is known yet.
engine::Verification verification(
    engine::VerificationState state = engine::VerificationState::completed);
engine::TelemetryHistory telemetry_history();

engine::RepositoryView repository();
engine::StorageInfo storage();

engine::Vm vm();
engine::ListedVm listed_vm();
engine::VmView vm_view();

engine::ExportView ingest_export();
engine::PortsStatus ports();
engine::MetricsSnapshot metrics();

}  // namespace api_tests
