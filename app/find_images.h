// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/check_backup.h"

namespace app {

struct FoundImages {
  engine::NamedImages images;
  bool of_catalogue = false;  ///< published images that the catalogue knows
};

/// A file, as soon as `target` looks like one or is there; else the images of a backup id or image
/// id. `catalogue`: "" for that of `varve serve`, by the configuration file `config`, which is read
/// for names only. Throws std::runtime_error, UsageError.
FoundImages find_images(const std::string& target, const std::string& catalogue,
                        const std::string& config);

}  // namespace app
