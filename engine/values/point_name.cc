// SPDX-License-Identifier: Apache-2.0
#include "engine/values/point_name.h"

#include <fmt/format.h>

#include <charconv>

#include "engine/values/names.h"
#include "engine/values/time_text.h"

namespace engine {

std::optional<PointName> parse_point_name(std::string_view text) {
  constexpr std::string_view kDisk = "disk-";
  const size_t at = text.rfind('@');
  if (at == text.npos) return std::nullopt;
  const size_t slash = text.substr(0, at).rfind('/');
  if (slash == text.npos || slash == 0) return std::nullopt;
  std::string_view disk = text.substr(slash + 1, at - slash - 1);
  if (!disk.starts_with(kDisk)) return std::nullopt;
  disk.remove_prefix(kDisk.size());
  PointName name;
  const auto [end, error] =
      std::from_chars(disk.data(), disk.data() + disk.size(), name.disk_index);
  if (error != std::errc() || end != disk.data() + disk.size()) return std::nullopt;
  name.vm_name = text.substr(0, slash);
  name.point = text.substr(at + 1);
  return name;
}

std::string point_export_name(std::string_view vm_name, uint32_t disk_index,
                              std::string_view job_id) {
  return fmt::format("{}/disk-{}@{}", vm_name, disk_index, job_id);
}

std::pair<std::string, std::string> split_point(const std::string& text) {
  const size_t at = text.rfind('@');
  if (at == std::string::npos) return {text, ""};
  std::string point = text.substr(at + 1);
  const bool is_point =
      point == kLatestPoint || point.starts_with(kJobPrefix) || from_rfc3339(point);
  if (!is_point) return {text, ""};
  return {text.substr(0, at), std::move(point)};
}

}  // namespace engine
