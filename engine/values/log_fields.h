// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "engine/values/types.h"
#include "io/log.h"

namespace engine {

/// What a line of the log about a backup says to programs; `error` is the cause alone. Views of the
/// job's own texts.
inline io::LogFields about(const Job& job, std::string_view error = {}) {
  return {.job = job.id, .vm = job.vm_name, .error = error};
}

/// About one disk of it.
inline io::LogFields about(const Job& job, uint32_t disk_index, std::string_view error = {}) {
  return {.job = job.id, .vm = job.vm_name, .disk = disk_index, .error = error};
}

}  // namespace engine
