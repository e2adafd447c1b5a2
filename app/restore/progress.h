// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "io/runtime.h"
#include "io/task.h"

namespace app {

/// The target cannot be taken as it is: there already, too small, of another restore.
class TargetRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// How far a restore came, in a small file, so that --resume can continue it. One thread.
class RestoreProgress {
 public:
  /// `source_name`, `size`: of the point and its disk; a record of another one is not taken.
  RestoreProgress(io::Runtime runtime, std::string path, std::string source_name, uint64_t size)
      : runtime_(runtime),
        path_(std::move(path)),
        source_name_(std::move(source_name)),
        size_(size) {}

  /// Bytes from the start of the disk that are there already; 0 without a record. Throws
  /// TargetRefused for another restore's.
  io::Task<uint64_t> read();
  /// The target is durable up to `done`.
  io::Task<void> keep(uint64_t done);
  /// Durable: a record must not outlive what it tells of.
  io::Task<void> forget();

  /// Where the record of a target without a directory of its own lies, a device or an export:
  /// "$XDG_STATE_HOME/varve/<target, percent-encoded>.state".
  static std::string path_for(const std::string& target);

 private:
  const io::Runtime runtime_;
  const std::string path_, source_name_;
  const uint64_t size_;
};

}  // namespace app
