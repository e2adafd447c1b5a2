// SPDX-License-Identifier: Apache-2.0
#include "io/ring_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>

#include "io/failure.h"
#include "io/ring_file.h"

namespace io {
namespace {

constexpr mode_t kFilePermissions = 0644;
constexpr mode_t kPrivateFilePermissions = 0600;
constexpr mode_t kDirectoryPermissions = 0755;
/// Every file system that takes O_DIRECT takes this alignment.
constexpr uint32_t kSafeDirectAlignment = 4096;

/// With O_NONBLOCK, opening a FIFO does not wait for its other end.
int open_flags(OpenMode mode) {
  constexpr int kAlways = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  switch (mode) {
    case OpenMode::read_only:
    case OpenMode::disk_read_only:
      return O_RDONLY | kAlways;
    case OpenMode::read_write:
      return O_RDWR | kAlways;
    case OpenMode::create_new:
    case OpenMode::create_private:
      return O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    case OpenMode::own_or_create:
      return O_RDWR | O_CREAT | kAlways;
    case OpenMode::block_device:
      return O_RDWR | O_EXCL | kAlways;
  }
  return O_RDONLY | kAlways;
}

std::system_error not_regular(std::string_view verb, const std::string& path, mode_t mode) {
  const std::string_view what = S_ISLNK(mode)    ? "a symbolic link"
                                : S_ISFIFO(mode) ? "a FIFO"
                                : S_ISSOCK(mode) ? "a socket"
                                : S_ISBLK(mode)  ? "a block device"
                                : S_ISCHR(mode)  ? "a character device"
                                                 : "a directory";
  const std::string_view advice =
      S_ISBLK(mode)
          ? "; make a QCOW2 file on a file system with \"varve create\", or copy the device "
            "into one with \"qemu-img convert\""
          : "";
  return failure(verb, fmt::format("{}, which is {} and not a regular file{}", path, what, advice),
                 S_ISDIR(mode) ? EISDIR : EINVAL);
}

/// From here on the descriptor blocks as usual.
void require_kind(int fd, const std::string& path, OpenMode mode) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw failure("stat", path, errno);
  const bool is_device = S_ISBLK(status.st_mode);
  if (mode == OpenMode::block_device) {
    if (!is_device) throw failure("open as a block device", path, ENOTBLK);
  } else if (is_device && mode == OpenMode::disk_read_only) {
    // As good as a file, to whoever reads it.
  } else if (!S_ISREG(status.st_mode)) {
    throw not_regular("open", path, status.st_mode);
  }
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) {
    throw failure("set mode of", path, errno);
  }
}

/// Whom files belong to that this process makes beside `path`: not always the process's own user,
/// as when an NFS server maps root to another.
uid_t owner_of_new_files(const std::string& path) {
  std::string probe = path + ".XXXXXX";
  const OwnedFd fd(::mkostemp(probe.data(), O_CLOEXEC));
  struct stat status {};
  if (!fd.valid()) return ::geteuid();
  ::unlink(probe.c_str());
  return ::fstat(fd.get(), &status) == 0 ? status.st_uid : ::geteuid();
}

/// Another's file must not be written through a name that its owner could give it.
void require_own(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw failure("stat", path, errno);
  if (status.st_nlink > 1) throw failure("open", path + ", which has other names too", EPERM);
  if (status.st_uid == ::geteuid() || status.st_uid == owner_of_new_files(path)) return;
  throw failure("open", fmt::format("{}, which belongs to user {}", path, status.st_uid), EPERM);
}

/// Opens the file of `cached` once more with O_DIRECT, by its descriptor, so that a rename in
/// between cannot mix two files up. Invalid where the file system refuses O_DIRECT.
OwnedFd open_direct(int cached, OpenMode mode) {
  const std::string self = "/proc/self/fd/" + std::to_string(cached);
  const bool reads = mode == OpenMode::read_only || mode == OpenMode::disk_read_only;
  const int access = reads ? O_RDONLY : O_RDWR;
  return OwnedFd(::open(self.c_str(), access | O_CLOEXEC | O_DIRECT));
}

/// What the kernel says O_DIRECT needs (statx, Linux 6.1), or the safe value.
uint32_t direct_alignment(int fd) {
#ifdef STATX_DIOALIGN
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0 && status.stx_dio_offset_align != 0) {
    return std::max(status.stx_dio_offset_align, status.stx_dio_mem_align);
  }
#else
  static_cast<void>(fd);
#endif
  return kSafeDirectAlignment;
}

FileKind kind_of(mode_t mode) {
  if (S_ISREG(mode)) return FileKind::file;
  if (S_ISDIR(mode)) return FileKind::directory;
  if (S_ISLNK(mode)) return FileKind::symlink;
  return FileKind::other;
}

std::vector<DirectoryEntry> list_directory(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) throw failure("list", path, errno);
  std::vector<DirectoryEntry> entries;
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(directory.get());
    if (entry == nullptr) {
      if (errno != 0) throw failure("list", path, errno);
      return entries;
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat status {};
    if (::fstatat(::dirfd(directory.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // removed meanwhile
      throw failure("stat", path + "/" + name, errno);
    }
    entries.push_back({name, kind_of(status.st_mode)});
  }
}

}  // namespace

Task<std::unique_ptr<File>> RingFileSystem::open(std::string path, OpenMode mode) {
  const bool creates = mode == OpenMode::create_new || mode == OpenMode::create_private;
  const int flags = open_flags(mode);
  const mode_t permissions =
      mode == OpenMode::create_private ? kPrivateFilePermissions : kFilePermissions;
  const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_openat(sqe, AT_FDCWD, path.c_str(), flags, permissions);
  });
  if (result == -ELOOP) throw not_regular("open", path, S_IFLNK);
  if (result < 0) throw failure(creates ? "create" : "open", path, result);
  OwnedFd cached(result);
  if (!creates) require_kind(cached.get(), path, mode);
  if (mode == OpenMode::own_or_create) require_own(cached.get(), path);
  OwnedFd direct = open_direct(cached.get(), mode);
  const uint32_t alignment = direct.valid() ? direct_alignment(direct.get()) : 1;
  co_return std::make_unique<RingFile>(ring_, std::move(path), std::move(cached), std::move(direct),
                                       alignment);
}

Task<void> RingFileSystem::unlink(std::string path, int flags) {
  const int32_t result = co_await ring_.submit(
      [&](io_uring_sqe* sqe) { io_uring_prep_unlinkat(sqe, AT_FDCWD, path.c_str(), flags); });
  if (result < 0) throw failure("remove", path, result);
}

Task<void> RingFileSystem::remove(std::string path) { return unlink(std::move(path), 0); }
Task<void> RingFileSystem::remove_directory(std::string path) {
  return unlink(std::move(path), AT_REMOVEDIR);
}

Task<void> RingFileSystem::make_directories(std::string path) {
  const auto existing = co_await status(path, true);
  if (existing) {
    if (existing->kind != FileKind::directory) throw failure("make directory", path, ENOTDIR);
    co_return;
  }
  std::string above = parent_path(path);
  co_await make_directories(above);
  const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_mkdirat(sqe, AT_FDCWD, path.c_str(), kDirectoryPermissions);
  });
  if (result < 0 && result != -EEXIST) throw failure("make directory", path, result);
  co_await sync_directory(std::move(above));
}

Task<void> RingFileSystem::make_symlink(std::string target, std::string link) {
  const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_symlinkat(sqe, target.c_str(), AT_FDCWD, link.c_str());
  });
  if (result < 0) throw failure("make link", link, result);
}

Task<void> RingFileSystem::sync_directory(std::string path) {
  const int32_t opened = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_openat(sqe, AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  });
  if (opened < 0) throw failure("open directory", path, opened);
  const OwnedFd directory(opened);
  const int32_t result = co_await ring_.submit(
      [&](io_uring_sqe* sqe) { io_uring_prep_fsync(sqe, directory.get(), 0); });
  if (result < 0) throw failure("sync directory", path, result);
}

Task<std::vector<DirectoryEntry>> RingFileSystem::list(std::string path) {
  const auto call = [&path] { return list_directory(path); };
  co_return co_await ring_.run_blocking(call);
}

Task<std::optional<FileStatus>> RingFileSystem::status(std::string path, bool follow) {
  struct statx found {};
  const int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
  const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_statx(sqe, AT_FDCWD, path.c_str(), flags, STATX_BASIC_STATS, &found);
  });
  if (result == -ENOENT || result == -ENOTDIR) co_return std::nullopt;
  if (result < 0) throw failure("stat", path, result);
  FileStatus status;
  status.kind = kind_of(found.stx_mode);
  status.size = found.stx_size;
  status.allocated_bytes = found.stx_blocks * 512;
  status.device = (uint64_t{found.stx_dev_major} << 32) | found.stx_dev_minor;
  status.inode = found.stx_ino;
  co_return status;
}

Task<std::string> RingFileSystem::resolve(std::string path) {
  const auto call = [&path] {
    const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr),
                                                          std::free);
    if (!resolved) throw failure("resolve", path, errno);
    return std::string(resolved.get());
  };
  co_return co_await ring_.run_blocking(call);
}

Task<SpaceStatus> RingFileSystem::space(std::string path) {
  const auto call = [&path] {
    struct statvfs found {};
    if (::statvfs(path.c_str(), &found) != 0) throw failure("measure space of", path, errno);
    return SpaceStatus{.total_bytes = uint64_t{found.f_blocks} * found.f_frsize,
                       .available_bytes = uint64_t{found.f_bavail} * found.f_frsize};
  };
  co_return co_await ring_.run_blocking(call);
}

}  // namespace io
