#pragma once

#include "engine/core.h"

/// What a start finds of the life before it: jobs that were decided are carried to their end, other
/// active ones are failed, deletions are finished, and files that no row owns are removed (or put
/// into quarantine) and told of. Published points are never touched. Control thread, before
/// anything is served. Spec: contract.md 6.3, last row.
namespace engine {

io::Task<void> recover(Core& core);

/// Before it: a repository that was moved or copied, and is given by its new directory, keeps its
/// points. Names of images are unique for ever, so one of the same name in the same place of the
/// directory is the image; the rows of all others stay.
io::Task<void> find_moved_images(Core& core, Repository repository);

/// The last part: strays in one repository.
io::Task<void> remove_strays(Core& core, Repository repository);

}  // namespace engine
