#pragma once

#include <string>
#include <string_view>

#include "engine/values/views.h"

namespace api {

/// The Prometheus text format, version 0.0.4. Every family of docs/http-api.md is there, also while
/// it has nothing to count. Pure.
std::string prometheus_text(const engine::MetricsSnapshot& snapshot, std::string_view version);

}  // namespace api
