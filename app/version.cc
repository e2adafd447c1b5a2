// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sqlite3.h>

#include <nlohmann/json.hpp>

#include "app/options.h"
#include "io/ring.h"

namespace app {
namespace {

/// What this kernel's io_uring offers, or why it offers nothing.
std::string ring_tier() {
  try {
    return io::to_text(io::Ring().tier());
  } catch (const std::exception& failure) {
    return fmt::format("not available: {}", failure.what());
  }
}

}  // namespace

std::string version_text() {
  return fmt::format("varve {}\nio_uring tier: {}\nliburing {}, SQLite {}, TLS: GnuTLS\n",
                     VARVE_VERSION, ring_tier(), VARVE_LIBURING_VERSION, sqlite3_libversion());
}

std::string version_json() {
  const nlohmann::ordered_json json = {{"version", VARVE_VERSION},
                                       {"io_uring_tier", ring_tier()},
                                       {"liburing", VARVE_LIBURING_VERSION},
                                       {"sqlite", sqlite3_libversion()}};
  return json.dump() + "\n";
}

}  // namespace app
