#pragma once

#include <string>

#include "engine/core.h"

/// DELETE of a backup: rows and files. Control thread. Spec: contract.md 2.9, 7.4.
namespace engine {

io::Task<DeletedBackup> delete_job(Core& core, std::string backup_id, bool cascade);

/// Carries the deletion of a marked job to its end: files, chain.json, link, rows. May be repeated
/// after a crash. Returns the disk space that its files took.
io::Task<uint64_t> finish_deletion(Core& core, Job job);

/// The same for a caller without an answer: what fails is logged, and tried again with the
/// repository (finish_late_deletions).
io::Task<void> try_deletion(Core& core, Job job);
io::Task<void> finish_late_deletions(Core& core, std::string repository_id);

}  // namespace engine
