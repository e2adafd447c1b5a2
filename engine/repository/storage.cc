// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "engine/values/time_text.h"

namespace engine {
namespace {

constexpr uint64_t kReserveBytesDefault = uint64_t{1} << 30;
constexpr uint64_t kReservePercentDefault = 1;

}  // namespace

io::Task<void> prepare_repository(io::FileSystem& files, RepositoryType type,
                                  std::string directory) {
  if (type == RepositoryType::local) {
    co_await files.make_directories(directory);
    const auto status = co_await files.status(directory);
    if (!status || status->kind != io::FileKind::directory) {
      throw std::runtime_error(fmt::format("{} is not a directory", directory));
    }
  } else {
    const bool mounted = co_await is_mount_point(files, directory);
    if (!mounted) {
      throw std::runtime_error(
          fmt::format("{} is not a mount point; mount the share there first", directory));
    }
  }
}

io::Task<bool> is_mount_point(io::FileSystem& files, std::string directory) {
  const auto self = co_await files.status(directory);
  if (!self || self->kind != io::FileKind::directory) co_return false;
  const std::string above = directory + "/..";
  const auto parent = co_await files.status(above);
  // The root directory is its own parent.
  co_return parent && (parent->device != self->device || parent->inode == self->inode);
}

io::Task<StorageMeasure> measure_storage(io::Runtime runtime, std::string directory) {
  const io::SpaceStatus space = co_await runtime.files.space(directory);
  co_return StorageMeasure{
      .total_bytes = space.total_bytes,
      .used_bytes = space.total_bytes - std::min(space.total_bytes, space.available_bytes),
      .available_bytes = space.available_bytes,
      .measured_at = to_seconds(runtime.clock.wall_time())};
}

uint64_t reserve_of(uint64_t total_bytes, std::optional<uint64_t> configured_bytes) {
  return configured_bytes.value_or(
      std::min(kReserveBytesDefault, total_bytes / 100 * kReservePercentDefault));
}

}  // namespace engine
