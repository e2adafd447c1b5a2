// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/jobs/core.h"

/// The bad ends of a job: failed and cancelled. Control thread. docs/jobs.md, "Failure and cancel".
namespace engine {

/// Gives the whole job up: its exports refuse everything, its files are removed (or put into
/// quarantine), its ports are free, its row tells the cause. Nothing happens when it has ended
/// already, or was decided: that one is published. The caller holds job->steps.
/// What has arrived stays when the job was asked to keep it, has failed, and `leaving` allows it.
/// `code` of a failed one only.
io::Task<void> end_job(Core& core, std::shared_ptr<ActiveJob> job, JobState failed_or_cancelled,
                       std::string cause, std::optional<FailureCode> code,
                       Ingest::Leaving leaving = Ingest::Leaving::what_has_arrived);

/// Tries again to record the ends that the catalogue could not take. Throws while it cannot.
void record_missing_ends(Catalogue& catalogue, std::vector<UnrecordedEnd>& unrecorded);

/// The same with `failed` for a caller without the lock; waits for the step under way.
io::Task<void> fail_job(Core& core, std::shared_ptr<ActiveJob> job, FailureCode code,
                        std::string cause,
                        Ingest::Leaving leaving = Ingest::Leaving::what_has_arrived);

/// POST cancel.
io::Task<void> cancel_job(Core& core, std::string backup_id, std::string reason);

/// From now on the job's exports refuse everything, have no name and no port.
io::Task<void> close_exports(Ports& ports, ActiveJob& job);

/// Takes the closed exports down; connections may linger for seconds, and are waited for in the
/// background; here when something is to be left, so that it is at rest on return. What they have
/// counted is in `tally` before the first wait; a job that is removed is so right before the call.
io::Task<void> release_exports(Tally& tally, io::TaskScope& background,
                               std::shared_ptr<ActiveJob> job,
                               Ingest::Leaving leaving = Ingest::Leaving::nothing);

/// Removes what a deleted point has left: the image, its sidecar and its checksums, unless the name
/// stands for another image now. Missing files are fine. Returns the disk space that they took.
io::Task<uint64_t> remove_point(io::FileSystem& files, JobDisk disk);

/// Removes the directories of the job's disks, and the VM's with its vm.json, when nothing else is
/// in them. Never fails. The caller has the context's turn.
io::Task<void> remove_empty_directories(io::FileSystem& files, Job job);

/// Removes, or moves to <repository>/.quarantine/<job id>/, the images that a job has made (by the
/// identity in their records, own_image.h) before it ended badly,
/// and directories that are empty then. Never fails; takes the context's turn.
io::Task<void> discard_images(Core& core, Job job);
/// The same for a decided job, which may have renamed images and written sidecars.
io::Task<void> discard_decided_images(Core& core, Job job, std::vector<DecidedImage> decided);

}  // namespace engine
