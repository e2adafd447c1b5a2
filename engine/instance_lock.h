#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/file.h"
#include "io/runtime.h"

namespace engine {

/// Says that one varve, and no other, works with a catalogue or a repository: a lock file that
/// holds its pid. The kernel gives the lock back when the process ends, in whatever way.
/// Control thread. Spec: contract.md 11.
class InstanceLock {
 public:
  /// Throws std::runtime_error with the other's pid when `what` stays in use.
  static io::Task<InstanceLock> acquire(io::Runtime runtime, std::string lock_path,
                                        std::string what, int64_t pid);

  InstanceLock(InstanceLock&&) noexcept = default;

 private:
  explicit InstanceLock(std::unique_ptr<io::File> file) : file_(std::move(file)) {}

  std::unique_ptr<io::File> file_;
};

}  // namespace engine
