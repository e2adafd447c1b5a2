// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/copy_report.h"
#include "app/exit_status.h"
#include "engine/repository/rebuild_files.h"
#include "io/counted.h"
#include "io/ring_thread.h"

namespace app {
namespace {

/// What is not given is that of `varve serve`, which is asked for it only then.
RebuildOptions completed(RebuildOptions options) {
  if (options.repository.empty() || options.catalogue.empty()) {
    const engine::EngineOptions serve = configured(options.config).engine;
    if (options.repository.empty()) options.repository = serve.repository_path;
    if (options.catalogue.empty()) options.catalogue = serve.catalogue_path;
  }
  options.repository = absolute_path(options.repository);
  options.catalogue = absolute_path(options.catalogue);
  return options;
}

}  // namespace

int run_rebuild(const RebuildOptions& given) {
  const RebuildOptions options = completed(given);
  const std::string& directory = options.repository;
  if (!std::filesystem::is_directory(directory)) {
    throw UsageError(fmt::format("{}: no such directory; name one with --repository", directory));
  }
  io::RingRuntime parts;
  engine::RebuildRequest request{.catalogue_path = options.catalogue,
                                 .directory = directory,
                                 .repository_id = options.repository_id,
                                 .pid = ::getpid()};
  const std::string catalogue = request.catalogue_path;
  const engine::RebuildReport report =
      parts.ring().run(engine::rebuild_catalogue(parts.runtime(), std::move(request)));
  const int status = report.left_out.empty() ? kOk : kIncomplete;
  if (options.json) {
    print_json_line({{"catalogue", catalogue},
                     {"repository", directory},
                     {"vms", report.vms},
                     {"backups", report.backups},
                     {"images", report.images},
                     {"left_out", report.left_out},
                     {"exit_status", status}});
    return status;
  }
  fmt::print("{}: {}, {}, {} of {} are in the catalogue\n", catalogue,
             io::counted(report.vms, "VM"), io::counted(report.backups, "backup"),
             io::counted(report.images, "image"), directory);
  for (const std::string& problem : report.left_out) fmt::print(stderr, "left out: {}\n", problem);
  return status;
}

}  // namespace app
