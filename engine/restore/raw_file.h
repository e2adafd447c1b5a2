// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/file.h"

namespace engine {

/// A file, or what looks like one, whose bytes are the disk's. Belongs to one executor thread.
class RawFile final : public io::BlockDevice {
 public:
  /// `size` is the disk's; the file is at least as long.
  RawFile(std::unique_ptr<io::File> file, uint64_t size) : file_(std::move(file)), size_(size) {}

  uint64_t size() const override { return size_; }
  uint32_t preferred_block_size() const override { return 64 << 10; }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  /// Holes where the file system makes them, else zeroes are written.
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override { return file_->sync_data(); }
  /// All is data.
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

 private:
  std::unique_ptr<io::File> file_;
  const uint64_t size_;
  bool can_punch_ = true;
};

}  // namespace engine
