#include <fmt/format.h>
#include <sqlite3.h>

#include "app/options.h"
#include "io/ring.h"

namespace app {

std::string version_text() {
  std::string tier;
  try {
    tier = io::to_text(io::Ring().tier());
  } catch (const std::exception& failure) {
    tier = fmt::format("not available: {}", failure.what());
  }
  return fmt::format("varve {}\nio_uring tier: {}\nliburing {}, SQLite {}, TLS: GnuTLS\n",
                     VARVE_VERSION, tier, VARVE_LIBURING_VERSION, sqlite3_libversion());
}

}  // namespace app
