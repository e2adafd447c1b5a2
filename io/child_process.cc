// SPDX-License-Identifier: Apache-2.0
#include "io/child_process.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "io/failure.h"
#include "io/spawn_program.h"

namespace io {
namespace {

constexpr Duration kKillPatience = std::chrono::seconds(10);

std::string text_of_end(const siginfo_t& end) {
  if (end.si_code == CLD_EXITED) return fmt::format("ended with status {}", end.si_status);
  const char* const name = ::sigabbrev_np(end.si_status);
  return fmt::format("was killed by signal {}{}", end.si_status,
                     name != nullptr ? fmt::format(" (SIG{})", name) : "");
}

}  // namespace

ChildProcess::ChildProcess(Ring& ring, const std::string& program,
                           std::vector<std::string> arguments)
    : ring_(ring) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw failure("create", "socket pair", errno);
  }
  socket_ = std::make_unique<Socket>(ring, OwnedFd(ends[0]), program);
  const OwnedFd theirs(ends[1]);
  pid_ = Spawn()
             .stream(STDIN_FILENO, theirs.get())
             .stream(STDOUT_FILENO, theirs.get())
             .no_stream(STDERR_FILENO)
             .no_other_descriptor()
             .own_group()
             .start(program, std::move(arguments));
  // By number: the header of glibc 2.36 declares neither call for C++.
  pidfd_ = OwnedFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (pidfd_.valid()) return;
  const int cause = errno;
  ::kill(pid_, SIGKILL);  // no one else reaps it: the number is still its own
  ::waitpid(pid_, nullptr, WNOHANG);
  throw failure("watch", program, cause);
}

ChildProcess::~ChildProcess() {
  if (reaped_) return;
  kill();
  siginfo_t end{};
  ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &end, WEXITED | WNOHANG);
}

void ChildProcess::kill() noexcept {
  if (!reaped_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  socket_->abort();
}

Task<std::string> ChildProcess::ended() {
  Ring::Handle poll;
  const auto give_up = ring_.call_at(ring_.now() + kKillPatience, [&] {
    if (poll.is_under_way()) ring_.cancel(poll);
  });
  const int32_t seen = co_await ring_.submit(
      [&](io_uring_sqe* sqe) { io_uring_prep_poll_add(sqe, pidfd_.get(), POLLIN); }, &poll);
  siginfo_t end{};
  const int found = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &end, WEXITED | WNOHANG);
  if (found != 0 || end.si_pid == 0) {
    co_return fmt::format("does not end ({})", seen < 0 ? "it waits for a disk" : "unknown state");
  }
  reaped_ = true;
  co_return text_of_end(end);
}

}  // namespace io
