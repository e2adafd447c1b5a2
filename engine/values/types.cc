// SPDX-License-Identifier: Apache-2.0
#include "engine/values/types.h"

#include <charconv>

namespace engine {

using std::string_view;

ShownStatus shown_status(JobState state) {
  static constexpr std::array<ShownStatus, 6> kShown = {
      ShownStatus::pending,   ShownStatus::running, ShownStatus::running,
      ShownStatus::completed, ShownStatus::failed,  ShownStatus::cancelled};
  return kShown.at(static_cast<size_t>(state));
}

ShownStatus shown_status(DiskState state) {
  static constexpr std::array<ShownStatus, 6> kShown = {
      ShownStatus::pending,   ShownStatus::running,   ShownStatus::running,
      ShownStatus::completed, ShownStatus::completed, ShownStatus::failed};
  return kShown.at(static_cast<size_t>(state));
}

bool is_active(JobState state) {
  return state == JobState::preparing || state == JobState::running ||
         state == JobState::finalizing;
}

bool is_sealed(DiskState state) {
  return state == DiskState::sealed || state == DiskState::completed;
}

bool change_id_is_usable(string_view change_id) {
  return std::count(change_id.begin(), change_id.end(), '/') == 1;
}

string_view change_id_uuid(string_view change_id) {
  return change_id.substr(0, change_id.find('/'));
}

std::string vmware_disk_id(uint32_t key) { return "disk-" + std::to_string(key); }

std::optional<uint32_t> vmware_disk_key(string_view disk_id) {
  static constexpr string_view kPrefix = "disk-";
  static constexpr size_t kDigitsMax = 9;
  if (!disk_id.starts_with(kPrefix)) return std::nullopt;
  const string_view digits = disk_id.substr(kPrefix.size());
  if (digits.empty() || digits.size() > kDigitsMax) return std::nullopt;
  uint32_t key = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), key);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return key;
}

string_view inventory_name(string_view vm_path) {
  return vm_path.substr(vm_path.find_last_of('/') + 1);
}

}  // namespace engine
