// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/jobs/core.h"

/// VMs of which nobody hears: no good point is as new as expected. A backup that was never started
/// fails nowhere, so only its absence can tell of it. Spec: docs/monitoring.md, "Expected
/// intervals". Control thread.
namespace engine {

/// The VM with the interval that holds for it, and whether it is overdue now.
Vm with_silence(const Core& core, Vm vm);

/// Tells of each VM that becomes overdue, once for each silence, until the engine shuts down.
io::Task<void> watch_silence(Core& core);

}  // namespace engine
