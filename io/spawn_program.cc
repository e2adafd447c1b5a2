// SPDX-License-Identifier: Apache-2.0
#include "io/spawn_program.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <utility>

#include "io/failure.h"

extern char** environ;

namespace io {
namespace {

constexpr short kFlags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;

/// As posix_spawn wants them.
std::vector<char*> pointers(std::vector<std::string>& texts, std::vector<char*> first = {}) {
  for (std::string& text : texts) first.push_back(text.data());
  first.push_back(nullptr);
  return first;
}

}  // namespace

Spawn::Spawn() {
  ::posix_spawn_file_actions_init(&files_);
  ::posix_spawnattr_init(&attributes_);
  sigset_t none, defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setsigmask(&attributes_, &none);
  ::posix_spawnattr_setsigdefault(&attributes_, &defaults);
  ::posix_spawnattr_setflags(&attributes_, kFlags);
}

Spawn::~Spawn() {
  ::posix_spawn_file_actions_destroy(&files_);
  ::posix_spawnattr_destroy(&attributes_);
}

Spawn& Spawn::stream(int number, int fd) {
  ::posix_spawn_file_actions_adddup2(&files_, fd, number);
  return *this;
}

Spawn& Spawn::no_stream(int number) {
  ::posix_spawn_file_actions_addopen(&files_, number, "/dev/null", O_RDWR, 0);
  return *this;
}

Spawn& Spawn::no_other_descriptor() {
  ::posix_spawn_file_actions_addclosefrom_np(&files_, STDERR_FILENO + 1);
  return *this;
}

Spawn& Spawn::own_group() {
  ::posix_spawnattr_setpgroup(&attributes_, 0);
  ::posix_spawnattr_setflags(&attributes_, kFlags | POSIX_SPAWN_SETPGROUP);
  return *this;
}

pid_t Spawn::start(const std::string& program, std::vector<std::string> arguments,
                   std::vector<std::string> variables) const {
  std::vector<char*> inherited;
  for (char** variable = environ; *variable != nullptr; ++variable) inherited.push_back(*variable);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, program.c_str(), &files_, &attributes_, pointers(arguments).data(),
                     pointers(variables, std::move(inherited)).data());
  if (error != 0) throw failure("run", program, error);
  return child;
}

}  // namespace io
