// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "io/file.h"
#include "io/runtime.h"

namespace engine {

/// Says that one varve, and no other, works with a catalogue or a repository: a lock file that
/// holds its pid. The kernel gives the lock back when the process ends, in whatever way.
/// Control thread.
class InstanceLock {
 public:
  /// Throws std::runtime_error with the other's pid when `what` stays in use.
  static io::Task<InstanceLock> acquire(io::Runtime runtime, std::string lock_path,
                                        std::string what, int64_t pid);

  InstanceLock(InstanceLock&&) noexcept = default;

  /// The file that is locked, as it was when it was locked; nothing when nobody could say. A value:
  /// who waits with it for a file system may find the lock gone.
  std::optional<io::FileStatus> locked_file() const { return status_; }

 private:
  InstanceLock(std::unique_ptr<io::File> file, std::optional<io::FileStatus> status)
      : file_(std::move(file)), status_(status) {}

  std::unique_ptr<io::File> file_;
  std::optional<io::FileStatus> status_;
};

}  // namespace engine
