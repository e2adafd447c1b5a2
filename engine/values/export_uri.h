// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/values/options.h"

namespace engine {

/// The URIs under which clients reach an export: by its own port, where it has one, then by name on
/// the main listener and on the Unix socket. Spec: the NBD URI specification of the NBD project. Pure.
std::vector<std::string> export_uris(const EngineOptions& options, const std::string& name,
                                     uint16_t port = 0);

}  // namespace engine
