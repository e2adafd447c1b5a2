// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "app/tls_files.h"
#include "io/ring.h"
#include "io/runtime.h"
#include "nbd/client.h"
#include "nbd/uri.h"

namespace app {

/// `count` connections to one export, or fewer when the server offers no more (CAN_MULTI_CONN).
/// `contexts`: the metadata contexts to select, of which a server may not have all.
/// `files`: credentials for nbds, unless the URI names its own; with none at all, the directory
/// $VARVE_TLS_CERTIFICATES. Throws std::runtime_error that
/// names the URI's place; UsageError for credentials that cannot be used.
io::Task<std::vector<std::unique_ptr<nbd::Client>>> connect_all(io::Ring& ring, io::Runtime runtime,
                                                                nbd::Uri uri, uint32_t count,
                                                                TlsClientFiles files,
                                                                std::vector<std::string> contexts);

}  // namespace app
