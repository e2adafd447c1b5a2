// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "io/owned_fd.h"

namespace app {

/// --fork: the rest of the process continues in a child, and whoever started it waits until the
/// child serves, or has failed.
class Background {
 public:
  /// Forks; only the child returns. Before the first thread.
  static Background enter();

  /// The server listens: the process that was started ends with 0, and this one lets go of its
  /// terminal, its directory and the standard streams.
  void report_ready();

 private:
  explicit Background(io::OwnedFd report) : report_(std::move(report)) {}
  io::OwnedFd report_;  // closed without a word when this process ends before it serves
};

/// --pid-file: the process id in a file while the object lives.
class PidFile {
 public:
  /// Throws std::system_error.
  explicit PidFile(std::string path);
  PidFile(const PidFile&) = delete;
  ~PidFile();

 private:
  std::string path_;
  io::OwnedFd fd_;  ///< keeps its inode number from another file
};

/// A directory that no other user may enter, removed with the socket in it.
class PrivateDirectory {
 public:
  PrivateDirectory();
  PrivateDirectory(const PrivateDirectory&) = delete;
  ~PrivateDirectory();
  std::string socket() const { return path_ + "/nbd.sock"; }

 private:
  std::string path_;
};

/// Before the first thread of a process that will run a command.
void prepare_run_command();

/// --run: the shell runs `command`, which finds `variables` ("uri=nbd://…") in its environment.
/// Waits for its end, and returns its exit status as a shell counts it: 128 and the signal that
/// killed it. A termination signal to this process is passed on to the command.
int run_command(const std::string& command, const std::vector<std::string>& variables);

}  // namespace app
