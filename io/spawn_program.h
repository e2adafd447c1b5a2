// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spawn.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace io {

/// How another program is started: without the signals that this one blocks or ignores, and with
/// its environment. What it inherits else is said before start(). One thread.
class Spawn {
 public:
  Spawn();
  Spawn(const Spawn&) = delete;
  ~Spawn();

  /// Its descriptor `number` is a copy of this program's `fd`, or /dev/null.
  Spawn& stream(int number, int fd);
  Spawn& no_stream(int number);
  /// It gets no descriptor but the three standard streams.
  Spawn& no_other_descriptor();
  /// It leads a process group: the terminal's signals are not for it, and it can be killed with
  /// what it has started.
  Spawn& own_group();

  /// Looks on $PATH for a program without a slash; `variables` ("NAME=value") are added to the
  /// environment. The caller reaps it. Throws std::system_error.
  pid_t start(const std::string& program, std::vector<std::string> arguments,
              std::vector<std::string> variables = {}) const;

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

}  // namespace io
