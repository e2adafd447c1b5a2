// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "qcow/chain/layer.h"
#include "qcow/chain/merged_map.h"

namespace qcow {

struct ChainOptions {
  /// Parents must lie in here (RF15); empty: anywhere.
  std::string repository_root;
  bool lock = true;                   ///< reader's locks on every layer (LK2)
  bool alone = false;                 ///< without its parents: what they hold is unallocated
  bool salvage = false;               ///< read images with the corrupt bit (RF7)
  uint64_t map_bytes_max = 16 << 20;  ///< memory for looked-up tables
};

/// A restore point, read through its layers: one image and its parents, all read-only.
///
/// Which layer answers for a cluster is kept in a flat map (BC4, qcow/chain/merged_map.h), so a
/// read costs the same over one layer and over sixty. Bytes past the end of a shorter parent are
/// zeroes, of a longer one are cut (BC3). Reads past size() give zeroes too: a grown overlay asks
/// for them.
///
/// write(), write_zeroes() and discard() throw EPERM. Belongs to one executor thread.
class Chain final : public io::BlockDevice {
 public:
  static constexpr size_t kLayersMax = 256;

  /// Opens the image at `path` and all its parents. Throws FormatError with the texts of RF1–RF21.
  static io::Task<std::unique_ptr<Chain>> open(io::Runtime runtime, std::string path,
                                               ChainOptions options);

  /// Opens the parents of an image that somebody else holds open, found and judged by its header.
  /// Null when it has none.
  static io::Task<std::unique_ptr<Chain>> open_parents_of(io::Runtime runtime, std::string path,
                                                          Header header, ChainOptions options);

  ~Chain() override;

  uint64_t size() const override;
  uint32_t preferred_block_size() const override;
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

  const MergedMap& map() const { return map_; }
  /// Which layer answers for bytes [from, end), both at most size(); ascending, without gaps.
  io::Task<std::vector<Run>> runs(GuestOffset from, GuestOffset end);

  /// Top first.
  size_t layer_count() const { return layers_.size(); }
  const Layer& layer(size_t index) const { return *layers_[index]; }

  /// Why the chain's content is in doubt (BC6), if it is: the first layer that was published and
  /// that another program has since opened for writing. Sizes against sidecars are the engine's
  /// part: layer(i).file_bytes().
  std::optional<std::string> suspect() const;

  /// From now on others may write or remove the layers' files.
  void release_locks() {
    for (const auto& layer : layers_) layer->release_lock();
  }

 private:
  Chain(io::Runtime runtime, std::vector<std::unique_ptr<Layer>> layers, ChainOptions options);
  io::Task<void> read_inside(uint64_t offset, std::span<std::byte> into);
  io::Task<void> read_run(Run run, std::span<std::byte> into);
  io::Task<void> read_compressed_run(Run run, std::span<std::byte> into);

  io::Runtime runtime_;
  std::vector<std::unique_ptr<Layer>> layers_;
  MergedMap map_;
  io::Semaphore reads_;           // bounds what one fragmented request puts on the ring
  io::Semaphore decompressions_;  // each holds two clusters of scratch memory
};

}  // namespace qcow
