// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/jobs/core.h"

/// What is being served, and the numbers of it. Control thread.
namespace engine {

std::vector<ExportView> export_views(const Core& core);
MetricsSnapshot metrics_snapshot(Core& core);

}  // namespace engine
