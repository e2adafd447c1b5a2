// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// The snapshot on which a previous change id is decided, and the record of what was handed out.
/// Control thread. Spec: docs/jobs.md, "Change ids".
namespace engine {

ChangeIdAnswer answer_change_id(Catalogue& catalogue, const ActiveJobs& jobs,
                                const ChangeIdQuery& query);
ChangeIdAnswer answer_change_id(Catalogue& catalogue, const ActiveJobs& jobs,
                                const ChangeIdByPathQuery& query);

}  // namespace engine
