// SPDX-License-Identifier: Apache-2.0
#include "engine/check_backup.h"

#include <fmt/format.h>

#include <stdexcept>

#include "engine/catalogue/catalogue.h"
#include "engine/repository/sidecar.h"
#include "engine/values/digest.h"
#include "engine/values/layout.h"

namespace engine {
namespace {

io::Task<void> check_sidecar(io::Runtime runtime, qcow::ImageReport& image, bool required) {
  const std::string path = sidecar_path(image.path);
  const auto status = co_await runtime.files.status(path);
  if (!status) {
    auto& list = required ? image.problems : image.notes;
    list.push_back(fmt::format("its sidecar {} is missing", path));
    co_return;
  }
  try {
    const std::string text = co_await io::read_text(runtime.files, path);
    if (sha256(text) != image.header->record->manifest_hash) {
      image.problems.push_back(fmt::format("{} is not the sidecar it was published with", path));
      co_return;
    }
    const Sidecar sidecar = decode_sidecar(text);
    if (sidecar.disk.file_bytes != image.tables.file_bytes) {
      image.problems.push_back(fmt::format("{} bytes long, and published with {}",
                                           image.tables.file_bytes, sidecar.disk.file_bytes));
    }
    if (sidecar.backing_file != image.header->backing_name) {
      image.problems.push_back(fmt::format("its parent is \"{}\", and it was published on \"{}\"",
                                           image.header->backing_name, sidecar.backing_file));
    }
  } catch (const std::runtime_error& failure) {
    image.problems.push_back(fmt::format("its sidecar cannot be read: {}", failure.what()));
  }
}

}  // namespace

NamedImages find_backup(const std::string& catalogue_path, const std::string& name) {
  Catalogue catalogue(catalogue_path, DbAccess::read_only);
  std::vector<Point> points = catalogue.points.of_job(name);
  if (points.empty()) {
    if (auto point = catalogue.points.find(name)) points.push_back(std::move(*point));
  }
  if (points.empty()) {
    if (const auto job = catalogue.jobs.find(name)) {
      throw std::runtime_error(
          fmt::format("backup '{}' is {}: nothing of it is published", name, to_text(job->state)));
    }
    throw std::runtime_error(fmt::format(
        "'{}' is neither a file, nor a backup or image of catalogue {}", name, catalogue_path));
  }
  NamedImages images;
  for (const Point& point : points) {
    images.paths.push_back(point.image_path);
    images.disks.push_back(point.disk_index);
  }
  if (const auto repository = catalogue.repositories.find(points.front().repository_id)) {
    images.repository_directory = repository->directory;
  }
  return images;
}

io::Task<void> check_sidecars(io::Runtime runtime, qcow::ChainReport& report, bool required) {
  for (qcow::ImageReport& image : report.images) {
    if (image.published()) co_await check_sidecar(runtime, image, required);
  }
}

}  // namespace engine
