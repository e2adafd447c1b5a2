// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "app/notify/delivery.h"
#include "io/owned_fd.h"
#include "io/spawn_program.h"

namespace app {
namespace {

constexpr int kCommandMs = 60'000;

DeliveryFailure command_failure(const char* verb, int error) {
  return {fmt::format("{} the command: {}", verb, std::strerror(error)), false};
}

/// A file without a name, with the text from its beginning: nobody waits for who does not read it.
io::OwnedFd file_of(const std::string& text) {
  io::OwnedFd file(::memfd_create("varve-notification", MFD_CLOEXEC));
  if (!file.valid()) throw command_failure("prepare", errno);
  for (size_t done = 0; done < text.size();) {
    const ssize_t count =
        ::pwrite(file.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (count < 0) throw command_failure("prepare", errno);
    done += static_cast<size_t>(count);
  }
  return file;
}

class CommandWay final : public DeliveryWay {
 public:
  explicit CommandWay(std::string command)
      : command_(std::move(command)), interrupted_(::eventfd(0, EFD_CLOEXEC)) {}

  void deliver(const Message& message) override {
    const io::OwnedFd input = file_of(message.json);
    const pid_t pid = start(message, input.get());
    const io::OwnedFd watched(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const int no_watch = watched.valid() ? 0 : errno;
    pollfd ends[] = {{watched.get(), POLLIN, 0}, {interrupted_.get(), POLLIN, 0}};
    int ready = 0;
    do {
      ready = watched.valid() ? ::poll(ends, std::size(ends), kCommandMs) : 0;
    } while (ready < 0 && errno == EINTR);
    const bool has_ended = ready > 0 && ends[0].revents != 0;
    // Also what it has left behind in its group; who is no longer there is not missed.
    ::kill(-pid, SIGKILL);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (no_watch != 0) throw command_failure("watch", no_watch);
    if (!has_ended) {
      throw DeliveryFailure(ready == 0 ? "the command did not end within a minute and was killed"
                                       : "varve stops; the command was killed",
                            false);
    }
    if (WIFSIGNALED(status)) {
      throw DeliveryFailure(fmt::format("the command was killed by signal {}", WTERMSIG(status)),
                            false);
    }
    if (WEXITSTATUS(status) != 0) {
      throw DeliveryFailure(fmt::format("the command ended with status {}", WEXITSTATUS(status)),
                            false);
    }
  }

  void interrupt() noexcept override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(interrupted_.get(), &one, sizeof one);
  }

 private:
  /// Standard output goes where the errors go, to varve's log.
  pid_t start(const Message& message, int input) {
    std::vector<std::string> variables;
    for (const auto& [name, value] : message.environment) variables.push_back(name + "=" + value);
    try {
      return io::Spawn()
          .stream(STDIN_FILENO, input)
          .stream(STDOUT_FILENO, STDERR_FILENO)
          .no_other_descriptor()
          .own_group()
          .start("/bin/sh", {"sh", "-c", command_}, std::move(variables));
    } catch (const std::system_error& failure) {
      throw command_failure("run", failure.code().value());
    }
  }

  const std::string command_;
  const io::OwnedFd interrupted_;
};

}  // namespace

std::unique_ptr<DeliveryWay> make_command(std::string command) {
  return std::make_unique<CommandWay>(std::move(command));
}

}  // namespace app
