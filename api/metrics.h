// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/request_counts.h"
#include "engine/values/views.h"

namespace api {

/// The process, as its operating system sees it; what could not be read is missing.
struct ProcessNumbers {
  std::optional<double> start_time_seconds;  ///< since 1970
  std::optional<double> cpu_seconds;         ///< user and system, so far
  std::optional<uint64_t> open_fds, fds_max, threads;
  std::optional<uint64_t> resident_bytes, virtual_bytes;
};

/// Whose numbers they are, beside the engine's.
struct ServiceNumbers {
  std::string_view version;
  RequestCounts::Counts http_requests;
  ProcessNumbers process;
};

/// The Prometheus text format, version 0.0.4. Every family of docs/monitoring.md is there, also
/// while it has nothing to count. Pure.
std::string prometheus_text(const engine::MetricsSnapshot& snapshot, const ServiceNumbers& service);

}  // namespace api
