// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/ingest/arrivals.h"
#include "engine/ingest/entropy_sampler.h"
#include "io/block_device.h"
#include "qcow/image/image.h"

namespace engine {

/// What an image that is being filled tells of itself, on any thread.
struct FillingCounters {
  std::atomic<uint64_t> covered_bytes = 0, stored_bytes = 0, elided_bytes = 0, used_bytes = 0;
  std::atomic<uint64_t> judged_bytes = 0, incompressible_bytes = 0, zero_data_bytes = 0;
};

/// An image as the export of its backup sees it, with a note of what arrives.
///
/// Allocation depth 1 says that a byte has arrived in this backup, whether it was stored or equals
/// what the parents hold; what has not is never 1. Belongs to the data thread; outlives its export.
class Filling final : public io::BlockDevice {
 public:
  /// Both outlive it, and `arrivals` is started with the image.
  Filling(std::unique_ptr<qcow::Image> image, Arrivals& arrivals, FillingCounters& counters)
      : image_(std::move(image)), arrivals_(arrivals), counters_(counters) {}

  qcow::Image& image() { return *image_; }
  const EntropySampler& sampler() const { return sampler_; }

  uint64_t size() const override { return image_->size(); }
  uint32_t preferred_block_size() const override { return image_->preferred_block_size(); }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    return image_->read(offset, into);
  }
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override { return image_->flush(); }
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

  /// Of an image that stands on others, so that it reads as one without them would.
  io::Task<void> zero_the_rest();
  /// Brings the counters up to date.
  void count();

 private:
  /// A change of the image of which the arrival is saved.
  template <class Change>
  io::Task<void> noted(uint64_t offset, uint64_t length, Change change);
  void note(uint64_t offset, uint64_t length);

  std::unique_ptr<qcow::Image> image_;
  Arrivals& arrivals_;
  FillingCounters& counters_;
  EntropySampler sampler_;
};

}  // namespace engine
