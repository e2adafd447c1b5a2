#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/core.h"
#include "engine/digest.h"

/// How the sealed disks of a job become points, all of them or none.
///
/// Invariant: once the catalogue holds the decision, everything that follows can be repeated and
/// gives the same bytes, so a restart rolls forward; until its last transaction nothing published
/// changes. Control thread. Spec: contract.md 6.2; qcow2.md PU5-PU9.
namespace engine {

/// Publishes a job all of whose disks are sealed. Throws before the last transaction only; the
/// caller then fails the job. It holds job->steps.
io::Task<void> publish_job(Core& core, std::shared_ptr<ActiveJob> job);

/// Closes the exports of a published job and forgets it as a running one.
io::Task<void> retire_job(Core& core, std::shared_ptr<ActiveJob> job);

/// Carries a decided job to its end after a restart. Throws when that cannot be done.
io::Task<void> roll_forward(Core& core, Job job);

}  // namespace engine
