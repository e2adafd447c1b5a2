// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/jobs/core.h"

/// What the life before this one, or the time before a repository came back, has left in it: jobs
/// that were decided are carried to their end, other active ones are failed, deletions are
/// finished, and files that no row owns are removed (or put into quarantine) and logged. Published
/// points are never touched. Control thread, before a new job is started in the repository.
namespace engine {

io::Task<void> recover_repository(Core& core, Repository repository);

/// At the start, the unfinished jobs of repositories that are unavailable; what they have left is
/// removed when the repository comes back. Decided ones stay, to be published then.
void fail_unreachable_jobs(Core& core);

/// Before it: a repository that was moved or copied, and is given by its new directory, keeps its
/// points. Names of images are unique for ever, so one of the same name in the same place of the
/// directory is the image; the rows of all others stay.
io::Task<void> find_moved_images(Catalogue& catalogue, io::FileSystem& files,
                                 Repository repository);

/// The last part: strays in one repository.
io::Task<void> remove_orphans(Core& core, Repository repository);

}  // namespace engine
