// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/jobs/core.h"

/// VMs that have gone silent: their newest good point is older than expected. A backup that was
/// never started fails nowhere, so only its absence can show it. Spec: docs/monitoring.md,
/// "Expected intervals". Control thread.
namespace engine {

/// The VM with the interval that holds for it, and whether it is overdue now.
Vm with_silence(const Core& core, Vm vm);

/// Reports each VM that becomes overdue, once for each silence, until the engine shuts down.
io::Task<void> watch_silence(Core& core);

}  // namespace engine
