// SPDX-License-Identifier: Apache-2.0
/// A FUSE file system that shows a directory and lacks what it is told to lack, as NFS, CephFS, 9p
/// and many FUSE file systems do:
///
///   lesser_file_system BACKING MOUNT_POINT [WITHOUT...] -f
///
/// WITHOUT: --no-rename-flags (EINVAL for RENAME_NOREPLACE), --no-hard-links, --no-direct (EINVAL
/// for O_DIRECT), --no-allocate, --no-punch, --no-locks, --no-symlinks, --wrong-bytes (a direct
/// write of 64 KiB or more keeps its length and loses its last sector).
///
/// While a file BACKING.eio exists, data calls fail with EIO; while BACKING.slow exists, each write
/// takes 200 ms; while BACKING.stuck exists, no read of an image ends.
#define FUSE_USE_VERSION 34

#include <dirent.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr useconds_t kSlow = 200'000, kStuckLook = 20'000;
constexpr size_t kLargeWriteBytes = 64 << 10, kSectorBytes = 512;

std::string backing;
std::set<std::string> lacks;

bool has(const char* what) { return !lacks.contains(what); }
std::string below(const char* path) { return backing + path; }
int outcome(int result) { return result < 0 ? -errno : 0; }
int descriptor(const fuse_file_info* file) { return static_cast<int>(file->fh); }
bool is_set(const char* suffix) { return ::access((backing + suffix).c_str(), F_OK) == 0; }

int get_attributes(const char* path, struct stat* status, fuse_file_info*) {
  return outcome(::lstat(below(path).c_str(), status));
}

int read_link(const char* path, char* target, size_t size) {
  const ssize_t length = ::readlink(below(path).c_str(), target, size - 1);
  if (length < 0) return -errno;
  target[length] = '\0';
  return 0;
}

int make_directory(const char* path, mode_t mode) {
  return outcome(::mkdir(below(path).c_str(), mode));
}
int remove_file(const char* path) { return outcome(::unlink(below(path).c_str())); }
int remove_directory(const char* path) { return outcome(::rmdir(below(path).c_str())); }
int make_symlink(const char* target, const char* path) {
  return has("--no-symlinks") ? outcome(::symlink(target, below(path).c_str())) : -EPERM;
}
int make_link(const char* from, const char* to) {
  if (!has("--no-hard-links")) return -EPERM;
  return outcome(::link(below(from).c_str(), below(to).c_str()));
}
int rename_file(const char* from, const char* to, unsigned flags) {
  if (flags != 0 && !has("--no-rename-flags")) return -EINVAL;
  return outcome(::renameat2(AT_FDCWD, below(from).c_str(), AT_FDCWD, below(to).c_str(), flags));
}
int change_mode(const char* path, mode_t mode, fuse_file_info*) {
  return outcome(::chmod(below(path).c_str(), mode));
}
int truncate_file(const char* path, off_t size, fuse_file_info* file) {
  if (is_set(".eio")) return -EIO;
  return outcome(file != nullptr ? ::ftruncate(descriptor(file), size)
                                 : ::truncate(below(path).c_str(), size));
}
int space(const char* path, struct statvfs* status) {
  return outcome(::statvfs(below(path).c_str(), status));
}

int open_with(const char* path, int flags, mode_t mode, fuse_file_info* file) {
  if ((flags & O_DIRECT) != 0 && !has("--no-direct")) return -EINVAL;
  const int fd = ::open(below(path).c_str(), flags & ~O_DIRECT, mode);
  if (fd < 0) return -errno;
  file->fh = static_cast<uint64_t>(fd);
  return 0;
}
int open_file(const char* path, fuse_file_info* file) {
  return open_with(path, file->flags, 0, file);
}
int create_file(const char* path, mode_t mode, fuse_file_info* file) {
  return open_with(path, file->flags | O_CREAT, mode, file);
}
int close_file(const char*, fuse_file_info* file) { return outcome(::close(descriptor(file))); }

int read_file(const char* path, char* into, size_t size, off_t offset, fuse_file_info* file) {
  if (is_set(".eio")) return -EIO;
  while (is_set(".stuck") && std::string_view(path).ends_with(".qcow2")) ::usleep(kStuckLook);
  const ssize_t length = ::pread(descriptor(file), into, size, offset);
  return length < 0 ? -errno : static_cast<int>(length);
}
int write_file(const char*, const char* from, size_t size, off_t offset, fuse_file_info* file) {
  if (is_set(".eio")) return -EIO;
  if (is_set(".slow")) ::usleep(kSlow);
  size_t kept = size;
  if (!has("--wrong-bytes") && size >= kLargeWriteBytes) kept -= kSectorBytes;
  const ssize_t length = ::pwrite(descriptor(file), from, kept, offset);
  return length < 0 ? -errno : static_cast<int>(size);
}

int sync_file(const char*, int only_data, fuse_file_info* file) {
  if (is_set(".eio")) return -EIO;
  return outcome(only_data != 0 ? ::fdatasync(descriptor(file)) : ::fsync(descriptor(file)));
}
int sync_directory(const char* path, int, fuse_file_info*) {
  const int fd = ::open(below(path).c_str(), O_RDONLY | O_DIRECTORY);
  if (fd < 0) return -errno;
  const int result = outcome(::fsync(fd));
  ::close(fd);
  return result;
}

int list(const char* path, void* into, fuse_fill_dir_t fill, off_t, fuse_file_info*,
         fuse_readdir_flags) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(below(path).c_str()), ::closedir);
  if (!directory) return -errno;
  while (const dirent* const entry = ::readdir(directory.get())) {
    if (fill(into, entry->d_name, nullptr, 0, fuse_fill_dir_flags{}) != 0) break;
  }
  return 0;
}

int change_allocation(const char*, int mode, off_t offset, off_t length, fuse_file_info* file) {
  const bool punches = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  if (!has(punches ? "--no-punch" : "--no-allocate")) return -EOPNOTSUPP;
  return outcome(::fallocate(descriptor(file), mode, offset, length));
}
int refuse_lock(const char*, fuse_file_info*, int, struct flock*) { return -EOPNOTSUPP; }

fuse_operations operations() {
  fuse_operations table{};
  table.getattr = get_attributes;
  table.readlink = read_link;
  table.mkdir = make_directory;
  table.unlink = remove_file;
  table.rmdir = remove_directory;
  table.symlink = make_symlink;
  table.link = make_link;
  table.rename = rename_file;
  table.chmod = change_mode;
  table.truncate = truncate_file;
  table.statfs = space;
  table.open = open_file;
  table.create = create_file;
  table.release = close_file;
  table.read = read_file;
  table.write = write_file;
  table.fsync = sync_file;
  table.fsyncdir = sync_directory;
  table.readdir = list;
  table.fallocate = change_allocation;
  if (!has("--no-locks")) table.lock = refuse_lock;  // without it the kernel keeps them itself
  return table;
}

}  // namespace

int main(int count, char** values) {
  if (count < 3) {
    std::fprintf(stderr, "usage: lesser_file_system BACKING MOUNT_POINT [--no-...] -f\n");
    return 2;
  }
  backing = values[1];
  std::vector<char*> rest = {values[0]};
  for (int at = 2; at < count; ++at) {
    const bool is_lack = std::strncmp(values[at], "--", 2) == 0;
    if (is_lack) lacks.insert(values[at]);
    if (!is_lack) rest.push_back(values[at]);
  }
  const fuse_operations table = operations();
  return fuse_main(static_cast<int>(rest.size()), rest.data(), &table, nullptr);
}
