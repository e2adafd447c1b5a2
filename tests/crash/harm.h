// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/crash/files.h"
#include "tests/crash/rng.h"
#include "tests/crash/script.h"

namespace crash {

/// Does to a published image what Shape::harm says. `other_sums` is the manifest of another one, or
/// its own, and then nothing foreign is put there.
void harm(World& world, const std::string& image_path, const std::string& other_sums, Harm harm,
          Rng& rng);

}  // namespace crash
