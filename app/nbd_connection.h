#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/ring.h"
#include "io/runtime.h"
#include "nbd/client.h"
#include "nbd/uri.h"

namespace app {

/// `count` connections to one export, or fewer when the server offers no more (CAN_MULTI_CONN).
/// Throws std::runtime_error that names the URI's place.
io::Task<std::vector<std::unique_ptr<nbd::Client>>> connect_all(io::Ring& ring, io::Runtime runtime,
                                                                nbd::Uri uri, uint32_t count,
                                                                std::vector<std::string> contexts);

}  // namespace app
