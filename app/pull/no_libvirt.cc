// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "app/pull/libvirt.h"

namespace app {

std::unique_ptr<LibvirtBackup> LibvirtBackup::begin(
    const LibvirtRequest&, const std::function<void(const std::string&)>&) {
  throw std::runtime_error(
      "this varve was built without libvirt (libvirt-dev and libpugixml-dev); pull its NBD exports "
      "instead: docs/sources.md");
}

}  // namespace app
