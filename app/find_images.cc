// SPDX-License-Identifier: Apache-2.0
#include "app/find_images.h"

#include <filesystem>

#include "app/options.h"

namespace app {

FoundImages find_images(const std::string& target, const std::string& catalogue,
                        const std::string& config) {
  const bool is_path = target.find('/') != std::string::npos || target.ends_with(".qcow2");
  if (is_path || std::filesystem::exists(target)) return {{.paths = {target}, .disks = {0}}};
  const std::string known =
      catalogue.empty() ? configured(config).engine.catalogue_path : catalogue;
  return {engine::find_backup(known, target), true};
}

}  // namespace app
