// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/values/types.h"

/// The names under which restore points are exported. Pure. Spec: docs/restore.md, "Names".
namespace engine {

/// "<vm>/disk-<n>@<point>", where <point> is a backup id, "latest" or an RFC 3339 time. The VM's
/// registered name stands there as it is: the last '@' and the last '/' before it separate.
struct PointName {
  std::string vm_name;
  uint32_t disk_index = 0;
  std::string point;
};

/// Nothing when the text has another form.
std::optional<PointName> parse_point_name(std::string_view text);

/// The one name of a point that is no alias: with its backup's id.
std::string point_export_name(std::string_view vm_name, uint32_t disk_index,
                              std::string_view job_id);
inline std::string point_export_name(const Point& point) {
  return point_export_name(point.vm_name, point.disk_index, point.job_id);
}

inline constexpr std::string_view kLatestPoint = "latest";

/// "<vm>@<point>" as {vm, point}; {text, ""} when the text after the last '@' does not name a
/// point.
std::pair<std::string, std::string> split_point(const std::string& text);

}  // namespace engine
