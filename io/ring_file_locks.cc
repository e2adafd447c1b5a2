// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>

#include "io/failure.h"
#include "io/ring_file.h"

/// The locks of a file with two descriptions.
///
/// The kernel gives a description's locks back when its last reference goes, and every request
/// under way holds one, in a dead process too. So each description holds every lock: direct writes
/// that outlive their process keep those of the direct one, all others those of the cached one. The
/// direct description is locked first and tests; the cached one then takes the same byte, which
/// cannot fail while the direct one has it.
namespace io {
namespace {

int change_lock(int fd, short type, uint64_t at) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(at);
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

bool means_conflict(int error) { return error == EAGAIN || error == EACCES; }

}  // namespace

bool RingFile::lock_byte_shared(uint64_t at) {
  const int error = change_lock(first_description(), F_RDLCK, at);
  if (means_conflict(error)) return false;
  if (error != 0) throw failure("lock", path_, at, 1, error);
  locked_.insert(at);
  if (first_description() == cached_.get()) return true;
  const int second = change_lock(cached_.get(), F_RDLCK, at);
  if (second == 0) return true;
  unlock_byte(at);
  if (means_conflict(second)) return false;
  throw failure("lock", path_, at, 1, second);
}

void RingFile::unlock_byte(uint64_t at) {
  locked_.erase(at);
  for (const int fd : {first_description(), cached_.get()}) {
    const int error = change_lock(fd, F_UNLCK, at);
    if (error != 0) throw failure("unlock", path_, at, 1, error);
  }
}

/// The cached description lets go of the byte while the direct one, which keeps it, looks.
bool RingFile::byte_is_locked_elsewhere(uint64_t at) {
  const bool own = first_description() != cached_.get() && locked_.contains(at);
  const int let_go = own ? change_lock(cached_.get(), F_UNLCK, at) : 0;
  if (let_go != 0) throw failure("unlock", path_, at, 1, let_go);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(at);
  lock.l_len = 1;
  const int tested = ::fcntl(first_description(), F_OFD_GETLK, &lock) == 0 ? 0 : errno;
  const int retaken = own ? change_lock(cached_.get(), F_RDLCK, at) : 0;
  if (tested != 0) throw failure("test lock of", path_, at, 1, tested);
  if (retaken != 0) throw failure("lock", path_, at, 1, retaken);
  return lock.l_type != F_UNLCK;
}

namespace {

using Entries = std::filesystem::directory_iterator;

/// Calls `visit` until it says true. What vanishes meanwhile, and what may not be read, is left
/// out.
template <class Visit>
bool any_entry(const std::filesystem::path& directory, Visit visit) {
  std::error_code error;
  for (Entries entry(directory, error); !error && entry != Entries(); entry.increment(error)) {
    if (visit(entry->path())) return true;
  }
  return false;
}

bool is_process(const std::filesystem::path& path) {
  return path.filename().string().find_first_not_of("0123456789") == std::string::npos;
}

/// Whether a descriptor of some process stands for `file`, apart from `own` ones.
bool a_process_has_open(const std::filesystem::path& file, const std::set<std::string>& own) {
  const auto stands_for_it = [&](const std::filesystem::path& descriptor) {
    std::error_code ignored;
    return !own.contains(descriptor) && std::filesystem::read_symlink(descriptor, ignored) == file;
  };
  return any_entry("/proc", [&](const std::filesystem::path& process) {
    return is_process(process) && any_entry(process / "fd", stands_for_it);
  });
}

}  // namespace

Task<bool> RingFile::is_open_elsewhere() {
  const auto look = [this] {
    const std::string descriptors = "/proc/" + std::to_string(::getpid()) + "/fd/";
    std::set<std::string> own = {descriptors + std::to_string(cached_.get())};
    if (direct_.valid()) own.insert(descriptors + std::to_string(direct_.get()));
    std::error_code ignored;
    const auto file = std::filesystem::read_symlink(*own.begin(), ignored);
    return !file.empty() && a_process_has_open(file, own);
  };
  co_return co_await ring_.run_blocking(look);
}

}  // namespace io
