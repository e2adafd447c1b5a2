// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/values/types.h"
#include "io/block_device.h"
#include "io/runtime.h"
#include "qcow/image/image.h"

namespace engine {

/// A file that a whole disk is copied into, raw or QCOW2, standing alone. Belongs to one executor
/// thread; ends by close() or abandon().
class DiskFile {
 public:
  /// A sparse one of `size` bytes that reads as zeroes; EEXIST when the name is taken.
  static io::Task<void> create(io::Runtime runtime, std::string path, DiskFormat format,
                               uint64_t size);
  static io::Task<std::unique_ptr<DiskFile>> open(io::Runtime runtime, std::string path,
                                                  DiskFormat format);

  io::BlockDevice& device() { return *device_; }

  /// What was written is durable then. On failure abandon() it.
  io::Task<void> close();
  /// Never throws; loses what was not flushed.
  io::Task<void> abandon();

 private:
  DiskFile() = default;

  std::unique_ptr<io::BlockDevice> raw_;  // one of the two
  std::unique_ptr<qcow::Image> image_;
  io::BlockDevice* device_ = nullptr;
};

}  // namespace engine
