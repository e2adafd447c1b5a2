// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "engine/jobs/core.h"

/// How the sealed disks of a job become points, all of them or none.
///
/// Invariant: once the catalogue holds the decision, the job is published, however long that takes:
/// everything that follows can be repeated and gives the same bytes, and until its last transaction
/// nothing published changes. A failure on the way leaves the job `finalizing`, with its cause, and
/// it is tried again (unfinished.h). Only the proof that an image is lost ends it. Control thread.
/// Spec: docs/jobs.md, "Publish"; docs/qcow2-rules.md, PU5–PU9.
namespace engine {

/// Publishes a job all of whose disks are sealed. Throws before the decision only; the caller then
/// fails the job. Afterwards the row is `completed`, `finalizing` or, after such a proof, `failed`.
/// The caller holds job->steps.
io::Task<void> publish_job(Core& core, std::shared_ptr<ActiveJob> job);

/// Closes the exports of a decided job and forgets it as a running one.
io::Task<void> retire_job(Core& core, std::shared_ptr<ActiveJob> job);

/// The same for a decided job without exports: after a restart, or after a failure. Throws what
/// held it up, which its row says too.
io::Task<void> roll_forward(Core& core, Job job);

}  // namespace engine
