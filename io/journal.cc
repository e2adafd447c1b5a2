// SPDX-License-Identifier: Apache-2.0
#include "io/journal.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "io/owned_fd.h"

namespace io {
namespace {

constexpr const char* kSocket = "/run/systemd/journal/socket";
/// syslog(3): LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR.
constexpr std::array<int, 4> kPriorities = {7, 6, 4, 3};

/// A value with a line feed would need another form; none of ours is worth one.
void add(std::string& entry, std::string_view field, std::string_view value) {
  if (value.empty()) return;
  entry += field;
  entry += '=';
  const size_t at = entry.size();
  entry += value;
  std::replace(entry.begin() + static_cast<std::ptrdiff_t>(at), entry.end(), '\n', ' ');
  entry += '\n';
}

}  // namespace

bool stderr_is_journal() {
  const char* const named = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (named == nullptr || ::fstat(STDERR_FILENO, &status) != 0) return false;
  return fmt::format("{}:{}", status.st_dev, status.st_ino) == named;
}

std::string journal_entry(LogLevel level, const LogFields& fields, std::string_view text) {
  std::string entry;
  add(entry, "MESSAGE", text);
  add(entry, "PRIORITY", std::to_string(kPriorities.at(static_cast<size_t>(level))));
  add(entry, "SYSLOG_IDENTIFIER", "varve");
  add(entry, "VARVE_JOB", fields.job);
  add(entry, "VARVE_VM", fields.vm);
  if (fields.disk) add(entry, "VARVE_DISK", std::to_string(*fields.disk));
  add(entry, "VARVE_ERROR", fields.error);
  return entry;
}

bool send_to_journal(std::string_view entry) noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, kSocket);
  const OwnedFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return fd.valid() && ::sendto(fd.get(), entry.data(), entry.size(), MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr*>(&address),
                                sizeof address) == static_cast<ssize_t>(entry.size());
}

}  // namespace io
