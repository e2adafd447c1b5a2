// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

/// Other people's programs as oracles: run one, look at what it said. Knows nothing of gtest.
namespace support {

struct CommandResult {
  int exit_code = -1;  ///< 128 + signal when it was killed, as a shell says it
  std::string output;  ///< standard output and standard error, in the order of writing
  bool ok() const { return exit_code == 0; }
};

/// Runs `arguments[0]`, found on PATH, and waits for its end, at most `patience_seconds`: then it
/// is killed and the exit code is 137.
CommandResult run_command(const std::vector<std::string>& arguments, int patience_seconds = 60);

/// The same for "qemu-img info a.qcow2": words at spaces, no quoting.
CommandResult run_command(const std::string& words, int patience_seconds = 60);

/// A directory that disappears with everything in it.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  ~TempDir();
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace support
