// SPDX-License-Identifier: Apache-2.0
#include "app/audit_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "io/failure.h"
#include "io/log.h"

namespace app {

bool AuditFile::is_still_there() const {
  struct stat named {
  }, open{};
  return fd_.valid() && ::stat(path_.c_str(), &named) == 0 && ::fstat(fd_.get(), &open) == 0 &&
         named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

void AuditFile::append(const std::string& text) {
  if (!is_still_there()) {
    fd_ = io::OwnedFd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
    if (!fd_.valid()) throw io::failure("open", path_, errno);
  }
  const std::string whole = is_torn_ ? '\n' + text : text;
  ssize_t count;
  do {
    count = ::write(fd_.get(), whole.data(), whole.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) throw io::failure("write", path_, errno);
  is_torn_ = static_cast<size_t>(count) < whole.size();
  if (is_torn_) throw io::failure("write", path_, ENOSPC);
}

void AuditFile::write(std::string_view line) {
  const std::lock_guard lock(mutex_);
  try {
    append(std::string(line) + '\n');
    if (failing_) io::log(io::LogLevel::info, "http: the audit log {} is written again", path_);
    failing_ = false;
  } catch (const std::system_error& failure) {
    if (!failing_) {
      io::log(io::LogLevel::error, "http: lines of the audit log are lost: {}", failure.what());
    }
    failing_ = true;
  }
}

}  // namespace app
