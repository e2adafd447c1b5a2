#pragma once

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// The snapshot on which a previous change id is decided, and the record of what was handed out.
/// Control thread. Spec: docs/jobs.md, "Change ids".
namespace engine {

ChangeIdAnswer answer_change_id(Core& core, const ChangeIdQuery& query);
ChangeIdAnswer answer_change_id(Core& core, const ChangeIdByPathQuery& query);

}  // namespace engine
