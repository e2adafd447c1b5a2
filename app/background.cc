// SPDX-License-Identifier: Apache-2.0
#include "app/background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "io/failure.h"
#include "io/spawn_program.h"

namespace app {
namespace {

int exit_status(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_status(status);
}

/// Those of a process that runs a command: its child's, and its own end.
sigset_t awaited_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&signals, number);
  return signals;
}

}  // namespace

void prepare_run_command() {
  const sigset_t signals = awaited_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

Background Background::enter() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw io::failure("create", "pipe", errno);
  io::OwnedFd heard(ends[0]), report(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw io::failure("start", "process in the background", errno);
  if (child == 0) {
    ::setsid();
    return Background(std::move(report));
  }
  report = io::OwnedFd();
  char ready = 0;
  const bool serves = ::read(heard.get(), &ready, 1) == 1;
  // No destructors: everything here belongs to the child.
  ::_exit(serves ? 0 : wait_for(child));
}

void Background::report_ready() {
  if (::chdir("/") != 0) throw io::failure("change directory to", "/", errno);
  const io::OwnedFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (nothing.valid()) ::dup2(nothing.get(), stream);
  }
  const char ready = 1;
  // Where no one waits, no one needs to know.
  [[maybe_unused]] const ssize_t written = ::write(report_.get(), &ready, 1);
  report_ = io::OwnedFd();
}

PidFile::PidFile(std::string path) : path_(std::move(path)) {
  const std::string text = fmt::format("{}\n", ::getpid());
  constexpr int kFlags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  fd_ = io::OwnedFd(::open(path_.c_str(), kFlags, 0644));
  if (!fd_.valid()) throw io::failure("write", path_, errno);
  // Others may write to the directory: nothing of theirs is truncated, through no kind of link.
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) throw io::failure("stat", path_, errno);
  const bool own = S_ISREG(status.st_mode) && status.st_nlink == 1 &&
                   (status.st_uid == ::geteuid() || status.st_size == 0);
  if (!own) throw io::failure("write", path_ + ", which is not a regular file of this user", EPERM);
  if (::ftruncate(fd_.get(), 0) != 0 ||
      ::write(fd_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw io::failure("write", path_, errno);
  }
}

/// A newer server may have put its own file there.
PidFile::~PidFile() {
  struct stat own {
  }, named{};
  const bool ours = ::fstat(fd_.get(), &own) == 0 && ::lstat(path_.c_str(), &named) == 0 &&
                    own.st_dev == named.st_dev && own.st_ino == named.st_ino;
  if (ours) ::unlink(path_.c_str());
}

PrivateDirectory::PrivateDirectory() {
  const char* const parent = std::getenv("TMPDIR");
  path_ = std::string(parent != nullptr && *parent == '/' ? parent : "/tmp") + "/varve-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) throw io::failure("create directory", path_, errno);
}

PrivateDirectory::~PrivateDirectory() {
  ::unlink(socket().c_str());
  ::rmdir(path_.c_str());
}

int run_command(const std::string& command, const std::vector<std::string>& variables) {
  const pid_t child = io::Spawn().start("/bin/sh", {"sh", "-c", command}, variables);
  // Only this thread reaps the child, so its number means the child until then.
  const sigset_t awaited = awaited_signals();
  for (;;) {
    int number = 0;
    if (::sigwait(&awaited, &number) != 0) continue;
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) return exit_status(status);
    if (number != SIGCHLD) ::kill(child, SIGTERM);
  }
}

}  // namespace app
