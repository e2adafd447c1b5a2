// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"

/// How full repositories are, and who is told that one is too full or away. Control thread. Spec:
/// docs/monitoring.md.
namespace engine {

/// Keeps what is free now in core.spaces, and tells of a repository that has come down to its
/// reserve: once, until clearly more is free again. What cannot be measured stays as it was.
io::Task<void> measure_space(Core& core, Repository repository);

/// That a repository which could be used cannot be used now.
Notification unavailable_repository(const Repository& repository, const std::string& cause);

}  // namespace engine
