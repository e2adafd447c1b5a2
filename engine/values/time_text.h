// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/values/types.h"

/// Times as text: RFC 3339 for answers, rows and files, a compact form for names.
///
/// Invariant: UTC with second precision, whatever the time zone of the process; the calendar is
/// computed, no C library zone is asked. Pure.
namespace engine {

/// "2025-10-08T08:34:54Z".
std::string to_rfc3339(Time time);
/// "" for an absent time.
std::string to_rfc3339(const std::optional<Time>& time);

/// Reads what to_rfc3339 writes, also with a fraction of a second (dropped) or a numeric offset.
std::optional<Time> from_rfc3339(std::string_view text);

/// "20251008-083454".
std::string name_stamp(Time time);

constexpr int64_t unix_seconds(Time time) { return time.time_since_epoch().count(); }
constexpr Time from_unix_seconds(int64_t seconds) { return Time{std::chrono::seconds{seconds}}; }
constexpr Time to_seconds(WallTime time) { return std::chrono::floor<std::chrono::seconds>(time); }

}  // namespace engine
