// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// What the client says of its progress, and what is kept of it. Nothing but a report of failure
/// changes a job's state. Control thread. Spec: docs/jobs.md, "Telemetry".
namespace engine {

io::Task<void> record_telemetry(Core& core, std::string job_id, Telemetry report);

TelemetryHistory telemetry_history(Core& core, const std::string& job_id, uint64_t limit);

}  // namespace engine
