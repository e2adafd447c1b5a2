// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"

/// What has arrived in jobs that failed and were asked to keep it, until another job resumes it, a
/// new backup of the VM begins, space is needed, or nobody came for it. Control thread.
/// Spec: docs/jobs.md, "Resume".
namespace engine {

/// All images of the job are there, its own, with the notes of what has arrived.
io::Task<bool> can_be_resumed(io::FileSystem& files, Job job);

/// The failed job that a start names. Throws backup_not_found or not_resumable.
io::Task<Job> require_resumable(Core& core, std::string job_id);

/// Forgets what a job has left, then removes its files. Does nothing when it was resumed meanwhile.
/// `why` ends the log's sentence. The caller has no turn.
io::Task<void> drop_kept(Core& core, Job job, std::string why);

/// Everything that was left in a repository, by one VM if `context_id` names it, but not by
/// `except`. False when there was nothing.
io::Task<bool> drop_kept_of(Core& core, std::string repository_id, std::string why,
                            std::string except = {}, std::string context_id = {});

/// What has waited longer than EngineOptions::keep_partial_for. Never fails.
io::Task<void> drop_expired(Core& core);

}  // namespace engine
