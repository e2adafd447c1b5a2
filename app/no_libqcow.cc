// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "app/commands.h"
#include "app/read_image.h"

namespace app {

bool has_libqcow() { return false; }

int run_read_image(const ReadImageOptions&) {
  throw std::runtime_error("this varve was built without libqcow (libqcow-dev)");
}

}  // namespace app
