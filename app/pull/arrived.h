// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "engine/restore/copier.h"
#include "nbd/client.h"

namespace app {

/// Leaves out of a plan what the server has of a backup already: its export gives that allocation
/// depth 1 (docs/jobs.md, "Resume"). Belongs to the target's ring.
class Arrived {
 public:
  static constexpr const char* kContext = "qemu:allocation-depth";

  /// Throws std::runtime_error for a connection that has not selected the context.
  explicit Arrived(nbd::Client& target);

  /// What of `ranges`, in order, is still to be sent. Throws what asking throws.
  io::Task<std::vector<engine::CopyRange>> without(std::vector<engine::CopyRange> ranges);

  /// Of the ranges that were asked about.
  uint64_t bytes() const { return bytes_; }

 private:
  nbd::Client& target_;
  uint64_t bytes_ = 0;
};

}  // namespace app
