// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/recovery.h"
#include "engine/values/layout.h"
#include "io/counted.h"
#include "io/log.h"

namespace engine {
namespace {

/// Where an image lies in a repository of that directory: <context>/<disk>/<image>. Empty when the
/// path is too short to say.
std::string place_in(const std::string& directory, const std::string& image_path) {
  size_t start = image_path.size();
  for (int part = 0; part < 3; ++part) {  // context, disk, image
    if (start == 0) return "";
    start = image_path.rfind('/', start - 1);
    if (start == std::string::npos) return "";
  }
  return directory + image_path.substr(start);
}

io::Task<bool> lies_at(io::FileSystem& files, std::string image_path) {
  if (co_await files.status(image_path, false)) co_return true;
  const auto partial = co_await files.status(partial_path(image_path), false);
  co_return partial.has_value();
}

}  // namespace

io::Task<void> find_moved_images(Catalogue& catalogue, io::FileSystem& files,
                                 Repository repository) {
  size_t moved = 0;
  const std::vector<KnownImage> images = catalogue.jobs.known_images(repository.id);
  for (const KnownImage& image : images) {
    const std::string place = place_in(repository.directory, image.image_path);
    if (place.empty() || place == image.image_path) continue;
    const bool is_there = co_await lies_at(files, place);
    if (!is_there) continue;
    catalogue.jobs.move_image(image.image_id, place);
    ++moved;
  }
  if (moved == 0) co_return;
  io::log(io::LogLevel::info, "{} of repository {} found in {}, where it lies now",
          io::counted(moved, "image"), repository.id, repository.directory);
}

}  // namespace engine
