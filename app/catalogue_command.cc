// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "app/api_call.h"
#include "app/commands.h"
#include "app/copy_report.h"
#include "app/exit_status.h"
#include "app/operate/text.h"
#include "engine/catalogue/backup.h"
#include "io/ring_thread.h"

namespace app {
int run_catalogue_backup(const CatalogueBackupOptions& options) {
  const std::string catalogue =
      absolute_path(options.catalogue.empty() ? configured(options.config).engine.catalogue_path
                                              : options.catalogue);
  const std::string target = absolute_path(options.target);
  if (!std::filesystem::is_regular_file(catalogue)) {
    throw UsageError(fmt::format(
        "there is no catalogue {}; name it with --catalogue, or the server's file with --config",
        catalogue));
  }
  io::RingRuntime parts;
  try {
    parts.ring().run(engine::backup_catalogue(parts.runtime(), catalogue, target, options.force));
  } catch (const std::system_error& failure) {
    if (failure.code().value() != EEXIST) throw;
    throw CommandFailed(kBusy, fmt::format("{} exists; --force replaces it", target));
  }
  const uint64_t bytes = std::filesystem::file_size(target);
  if (options.json) {
    print_json_line({{"target", target}, {"catalogue", catalogue}, {"size_bytes", bytes}});
  } else {
    fmt::print("{}: catalogue {}, checked, {}\n", target, catalogue,
               size_text(bytes, Style{.bytes = options.bytes}));
  }
  return kOk;
}

}  // namespace app
