// SPDX-License-Identifier: Apache-2.0
#include "engine/values/layout.h"

#include <fmt/format.h>

namespace engine {

std::string disk_directory(std::string_view repository, std::string_view context_id,
                           uint32_t disk_index) {
  return fmt::format("{}/{}/{}{}", repository, context_id, kDiskPrefix, disk_index);
}

std::string vm_file_path(std::string_view repository, std::string_view context_id) {
  return fmt::format("{}/{}/{}", repository, context_id, kVmFileName);
}

std::string disk_link_name(std::string_view safe, uint32_t disk_key) {
  return fmt::format("{}-{}{}", safe, kDiskPrefix, disk_key);
}

std::string repository_lock_path(std::string_view repository) {
  return fmt::format("{}/.varve.lock", repository);
}

std::string quarantine_directory(std::string_view repository, std::string_view from) {
  return fmt::format("{}/.quarantine/{}", repository, from);
}

std::string image_file_name(std::string_view image_id) {
  return fmt::format("{}{}", image_id, kImageEnding);
}

std::string partial_path(std::string_view image_path) {
  return fmt::format("{}.partial", image_path);
}

std::string sidecar_path(std::string_view image_path) { return fmt::format("{}.json", image_path); }

std::string sums_path(std::string_view image_path) { return fmt::format("{}.sums", image_path); }

std::string proof_path(std::string_view image_path) {
  return fmt::format("{}.verified", image_path);
}

std::string arrived_path(std::string_view image_path) {
  return fmt::format("{}.arrived", image_path);
}

std::string overlay_path(std::string_view image_path, std::string_view restore_id,
                         uint32_t disk_index) {
  return fmt::format("{}/{}-disk{}{}", image_path.substr(0, image_path.rfind('/')), restore_id,
                     disk_index, kOverlayEnding);
}

std::string catalogue_lock_path(std::string_view catalogue) {
  return fmt::format("{}.lock", catalogue);
}

std::string secrets_path(std::string_view catalogue) {
  return fmt::format("{}.secrets", catalogue);
}

}  // namespace engine
