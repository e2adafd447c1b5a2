// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/rebuild_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine/catalogue/catalogue.h"
#include "engine/repository/instance_lock.h"
#include "engine/repository/marker.h"
#include "engine/values/layout.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

struct Found {
  std::vector<std::string> vm_files;
  std::vector<FoundImage> images;
  std::vector<std::string> problems;  // a sentence for each file that could not be read
};

/// "" when it is no file, or cannot be read: one bad block does not keep the others lost.
io::Task<std::string> read_if_file(io::FileSystem& files, std::string path, Found& found) {
  try {
    const auto there = co_await files.status(path, false);
    if (!there || there->kind != io::FileKind::file) co_return "";
    co_return co_await io::read_text(files, path);
  } catch (const std::exception& failure) {
    found.problems.emplace_back(failure.what());
    co_return "";
  }
}

io::Task<std::vector<io::DirectoryEntry>> list_if_readable(io::FileSystem& files,
                                                           std::string directory, Found& found) {
  try {
    co_return co_await files.list(directory);
  } catch (const std::exception& failure) {
    found.problems.emplace_back(failure.what());
    co_return std::vector<io::DirectoryEntry>();
  }
}

io::Task<void> read_disk(io::FileSystem& files, std::string directory, Found& found) {
  const std::vector<io::DirectoryEntry> entries =
      co_await list_if_readable(files, directory, found);
  for (const io::DirectoryEntry& entry : entries) {
    if (entry.kind != io::FileKind::file || !entry.name.ends_with(kImageEnding)) continue;
    FoundImage image{.image_path = directory + "/" + entry.name};
    const auto status = co_await files.status(image.image_path);
    if (!status) continue;
    image.file_bytes = status->size;
    image.allocated_bytes = status->allocated_bytes;
    const std::string sidecar = sidecar_path(image.image_path);
    image.sidecar = co_await read_if_file(files, sidecar, found);
    const std::string proof = proof_path(image.image_path);
    image.proof = co_await read_if_file(files, proof, found);
    found.images.push_back(std::move(image));
  }
}

/// Every disk of every VM, and what describes the VM (layout.h).
io::Task<Found> read_repository(io::FileSystem& files, std::string directory) {
  Found found;
  const std::vector<io::DirectoryEntry> contexts = co_await files.list(directory);
  for (const io::DirectoryEntry& context : contexts) {
    if (context.kind != io::FileKind::directory) continue;
    if (!context.name.starts_with(kContextPrefix)) continue;
    const std::string below = directory + "/" + context.name;
    const std::vector<io::DirectoryEntry> entries = co_await list_if_readable(files, below, found);
    for (const io::DirectoryEntry& entry : entries) {
      const std::string path = below + "/" + entry.name;
      if (entry.name == kVmFileName) {
        std::string text = co_await read_if_file(files, path, found);
        if (!text.empty()) found.vm_files.push_back(std::move(text));
      } else if (entry.kind == io::FileKind::directory && entry.name.starts_with(kDiskPrefix)) {
        co_await read_disk(files, path, found);
      }
    }
  }
  co_return found;
}

/// `marker_id` is what the directory says it is; "" when it says nothing.
void require_repository(Catalogue& catalogue, const RebuildRequest& request,
                        const std::string& marker_id, Time now) {
  const auto known = catalogue.repositories.find(request.repository_id);
  if (!known) {
    catalogue.repositories.insert(
        {.id = request.repository_id,
         .name = "repository " + request.repository_id,
         .type = RepositoryType::local,
         .config_json = nlohmann::json{{"path", request.directory}}.dump(),
         .directory = request.directory,
         .marker_id = marker_id},
        now);
  } else if (known->directory != request.directory) {
    throw std::runtime_error(fmt::format(
        "repository {} of {} is {}, not {}: choose another --repository-id", request.repository_id,
        request.catalogue_path, known->directory, request.directory));
  } else if (!known->marker_id.empty() && known->marker_id != marker_id) {
    throw std::runtime_error(fmt::format(
        "{} is not repository {} of {}: its {} says {}, not {}; is the right file system mounted?",
        request.directory, request.repository_id, request.catalogue_path, kMarkerName,
        marker_id.empty() ? "nothing" : marker_id, known->marker_id));
  }
}

}  // namespace

io::Task<RebuildReport> rebuild_catalogue(io::Runtime runtime, RebuildRequest request) {
  const std::string what = "repository " + request.directory;
  const InstanceLock repository_lock = co_await InstanceLock::acquire(
      runtime, repository_lock_path(request.directory), what, request.pid);
  const InstanceLock catalogue_lock =
      co_await InstanceLock::acquire(runtime, catalogue_lock_path(request.catalogue_path),
                                     "catalogue " + request.catalogue_path, request.pid);
  const auto marker = co_await read_marker(runtime.files, request.directory);
  const Found found = co_await read_repository(runtime.files, request.directory);
  const RebuildPlan plan = plan_rebuild(request.repository_id, found.vm_files, found.images);

  Catalogue catalogue(request.catalogue_path);
  require_repository(catalogue, request, marker.value_or(""),
                     to_seconds(runtime.clock.wall_time()));
  RebuildReport report{.vms = plan.vms.size(), .backups = plan.jobs.size()};
  for (const Job& job : plan.jobs) report.images += job.disks.size();
  report.left_out = found.problems;
  report.left_out.insert(report.left_out.end(), plan.problems.begin(), plan.problems.end());
  for (std::string& problem : catalogue.adopt(plan)) report.left_out.push_back(std::move(problem));
  co_return report;
}

}  // namespace engine
