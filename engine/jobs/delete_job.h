// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"

/// DELETE of a backup: rows and files. Control thread. Spec: docs/jobs.md, "Deletion".
namespace engine {

/// When a file or a row cannot be removed, the backups stay marked, are in no answer any more, and
/// are removed later (unfinished.h); the caller gets the error.
io::Task<DeletedBackup> delete_job(Core& core, std::string backup_id, bool cascade);

/// Carries the deletion of a marked job to its end. May be repeated after a failure or a crash.
io::Task<void> finish_deletion(Core& core, Job job);

}  // namespace engine
