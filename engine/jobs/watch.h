// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/jobs/core.h"

/// The eye on running jobs: timeouts, speed, samples. Control thread. Spec: docs/jobs.md,
/// "Timeouts".
namespace engine {

/// Looks at every running job each watch_interval, until the engine shuts down.
io::Task<void> watch_jobs(Core& core);

struct Timeout {
  FailureCode code = FailureCode::stalled;
  std::string cause;
};

/// Why a running job has to be given up now; nothing while all is well. `job` is not inside a step.
std::optional<Timeout> timeout_of(const JobTimeouts& timeouts, io::SteadyTime now, ActiveJob& job);

/// The first connection of a disk has come: it is transferring.
void note_connection(Catalogue& catalogue, ActiveJob& job, uint32_t disk_index);

/// The last byte of a request on any export, or the time since when one is expected.
io::SteadyTime last_traffic(const ActiveJob& job);

/// "15m0s", "1h30m0s", "1.5s", "300ms".
std::string duration_text(io::Duration duration);

}  // namespace engine
