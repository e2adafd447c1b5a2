// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <cerrno>

#include "io/failure.h"
#include "io/ring_file_system.h"

/// Renaming without replacing, also on file systems that lack RENAME_NOREPLACE: NFS, CephFS, 9p,
/// GlusterFS, FUSE without rename2.
namespace io {
namespace {

bool means_unknown_flag(int32_t result) {
  return result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP;
}

bool means_no_hard_links(int32_t result) {
  return result == -EPERM || result == -EOPNOTSUPP || result == -ENOSYS || result == -EMLINK ||
         result == -EINVAL;
}

}  // namespace

Task<int32_t> RingFileSystem::rename_once(const std::string& from, const std::string& to,
                                          unsigned flags) {
  co_return co_await ring_.submit([&from, &to, flags](io_uring_sqe* sqe) {
    io_uring_prep_renameat(sqe, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags);
  });
}

Task<void> RingFileSystem::rename(std::string from, std::string to, bool replace) {
  int32_t result = co_await rename_once(from, to, replace ? 0 : RENAME_NOREPLACE);
  if (!replace && means_unknown_flag(result)) result = co_await link_and_unlink(from, to);
  if (!replace && result == -EEXIST) {
    const bool same = co_await are_one_file(from, to);
    if (same) {  // a crash came between the two steps of an earlier call
      std::string directory = parent_path(to);
      co_await sync_directory(std::move(directory));
      co_await remove(std::move(from));
      co_return;
    }
  }
  if (result < 0) throw failure("rename", from + " to " + to, result);
}

/// The new name is durable before the old one goes: a power cut may undo either step alone. A hard
/// link never replaces. Where there are none, the name is looked up first: names of images
/// are unique by the catalogue, and one varve works in a repository.
Task<int32_t> RingFileSystem::link_and_unlink(const std::string& from, const std::string& to) {
  const int32_t linked = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_linkat(sqe, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0);
  });
  if (means_no_hard_links(linked)) {
    const auto taken = co_await status(to, false);
    if (taken) co_return -EEXIST;
    co_return co_await rename_once(from, to, 0);
  }
  if (linked < 0) co_return linked;
  std::string directory = parent_path(to);
  co_await sync_directory(std::move(directory));
  co_await remove(from);
  co_return 0;
}

Task<bool> RingFileSystem::are_one_file(const std::string& one, const std::string& other) {
  const auto first = co_await status(one, false);
  const auto second = co_await status(other, false);
  if (one == other || !first || !second) co_return false;
  co_return first->device == second->device && first->inode == second->inode;
}

}  // namespace io
