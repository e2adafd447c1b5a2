#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "app/commands.h"
#include "engine/rebuild_files.h"
#include "io/ring_thread.h"

namespace app {
namespace {

constexpr int kLeftOut = 3;

std::string absolute(const std::string& given, const char* usual) {
  return absolute_path(given.empty() ? default_state_directory() + usual : given);
}

}  // namespace

int run_rebuild(const RebuildOptions& options) {
  const std::string directory = absolute(options.repository, "/repository");
  if (!std::filesystem::is_directory(directory)) {
    throw UsageError(fmt::format("{}: no such directory; name one with --repository", directory));
  }
  io::RingRuntime parts;
  engine::RebuildRequest request{.catalogue_path = absolute(options.catalogue, "/catalogue.db"),
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
