// SPDX-License-Identifier: Apache-2.0
#include "engine/values/retention.h"

namespace engine {

RetentionLock retention_lock(const Repository& repository, Time completed_at, Time now) {
  if (repository.is_immutable) return {.is_locked = true, .until = std::nullopt};
  const Time until = completed_at + std::chrono::days(repository.min_retention_days);
  if (now >= until) return {};
  return {.is_locked = true, .until = until};
}

}  // namespace engine
