// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "engine/values/types.h"

namespace engine {

/// Whether the rules of a repository forbid to delete a completed backup now, and until when they
/// do; nothing: for good.
struct RetentionLock {
  bool is_locked = false;
  std::optional<Time> until;
};

/// Pure. Spec: docs/jobs.md, "Deletion".
RetentionLock retention_lock(const Repository& repository, Time completed_at, Time now);

}  // namespace engine
