// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/change_id.h"
#include "engine/values/requests.h"

/// POST complete: one disk is sealed; the last one publishes the job. Idempotent, also when two
/// calls run at once. Control thread. Spec: docs/jobs.md, "Complete".
namespace engine {

io::Task<CompletedDisk> complete_job(Core& core, CompleteDisk request);

/// The disks of a running job, as change_id.h looks at them.
std::vector<DiskSnapshot> disk_snapshots(const ActiveJob& job);
/// The same of a job that has ended.
std::vector<DiskSnapshot> disk_snapshots(const Job& job);

}  // namespace engine
