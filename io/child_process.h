// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "io/owned_fd.h"
#include "io/ring.h"
#include "io/socket.h"
#include "io/task.h"

namespace io {

/// A program that runs beside this one, with a socket for its standard input and output.
///
/// It inherits no other descriptor, no blocked signal, and neither the terminal's signals nor its
/// error output. Whoever starts one calls kill(), unless it ends by itself, and then ended(): that
/// takes its number back. Dropping it before that kills it. Belongs to one ring's thread.
class ChildProcess {
 public:
  /// Throws std::system_error when it cannot be started; what it then does wrong, its end says. The
  /// kernel kills a child that has asked for it when this thread ends.
  ChildProcess(Ring& ring, const std::string& program, std::vector<std::string> arguments);
  ChildProcess(const ChildProcess&) = delete;
  ~ChildProcess();

  /// Its standard input and output; ends when the child does.
  Stream& stream() { return *socket_; }
  pid_t pid() const { return pid_; }

  /// SIGKILL, and the end of the stream. Does not wait.
  void kill() noexcept;

  /// Waits until it has ended. Says how: "was killed by signal 9", "ended with status 1".
  ///
  /// A process that waits for a disk cannot be killed until the disk answers: after ten seconds it
  /// is given up, and stays a zombie until this program ends.
  Task<std::string> ended();

 private:
  Ring& ring_;
  pid_t pid_ = 0;
  OwnedFd pidfd_;
  std::unique_ptr<Socket> socket_;
  bool reaped_ = false;
};

}  // namespace io
