#pragma once

#include "engine/core.h"
#include "engine/requests.h"

/// The snapshot on which a previous change id is decided, and the record of what was handed out.
/// Control thread. Spec: contract.md 2.10, 5.1.
namespace engine {

ChangeIdAnswer answer_change_id(Core& core, const ChangeIdQuery& query);
ChangeIdAnswer answer_change_id(Core& core, const ChangeIdByPathQuery& query);

}  // namespace engine
