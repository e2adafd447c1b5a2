#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "app/commands.h"
#include "engine/repository/rebuild_files.h"
#include "io/ring_thread.h"

namespace app {
namespace {

constexpr int kLeftOut = 3;

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
  fmt::print("{}: {} VMs, {} backups, {} images of {} are in the catalogue\n", catalogue,
             report.vms, report.backups, report.images, directory);
  for (const std::string& problem : report.left_out) fmt::print(stderr, "left out: {}\n", problem);
  return report.left_out.empty() ? 0 : kLeftOut;
}

}  // namespace app
