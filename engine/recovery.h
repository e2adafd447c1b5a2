#pragma once

#include "engine/core.h"

/// What a start finds of the life before it: jobs that were decided are carried to their end, other
/// active ones are failed, deletions are finished, and files that no row owns are removed (or put
/// into quarantine) and told of. Published points are never touched. Control thread, before
/// anything is served. Spec: contract.md 6.3, last row.
namespace engine {

io::Task<void> recover(Core& core);

/// The last part: strays in one repository.
io::Task<void> remove_strays(Core& core, Repository repository);

}  // namespace engine
