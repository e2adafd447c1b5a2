// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/values/types.h"
#include "io/executor.h"
#include "io/runtime.h"
#include "io/sync.h"

namespace engine {

/// A promotion that is being copied.
struct PromotionUnderWay {
  explicit PromotionUnderWay(io::Executor& home) : ended(home) {}

  std::atomic<uint64_t> copied_bytes = 0;  ///< of all disks, holes too; any thread
  std::atomic<bool> cancelled = false;     ///< set on the control thread
  io::Event ended;                         ///< the control thread's
};

/// Copies the disk whose chain ends with `image_path` into a new file, which stands alone and is
/// durable but for its name. `repository_directory`: parents must lie in there; "": anywhere.
/// `verified`: what is read is compared with what was sent, and EIO what is not.
/// Throws ECANCELED within a second of a cancellation. On a data thread.
io::Task<void> copy_into_file(io::Runtime data, std::string image_path,
                              std::string repository_directory, std::string target,
                              DiskFormat format, bool verified,
                              std::shared_ptr<PromotionUnderWay> under_way);

}  // namespace engine
