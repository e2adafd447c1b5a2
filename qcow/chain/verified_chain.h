// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/chain_sums.h"

namespace qcow {

/// A chain whose content is compared with its manifests as it is read.
///
/// Invariant: bytes of a cluster that a manifest knows are given out only when the whole cluster is
/// what was sent; else the read throws EIO with the image and the cluster's place in the disk. What
/// no manifest knows is read as it is: images of earlier versions, damaged manifests (a warning in
/// the log), holes, and a cluster that a smaller disk of the chain cuts. Part of a cluster costs
/// the whole of it, once while it is among the last ones. Belongs to one executor thread; the chain
/// outlives it. Spec: docs/restore.md, "What is read is what was sent".
class VerifiedChain final : public io::BlockDevice {
 public:
  /// `name`: of the disk, for messages.
  VerifiedChain(io::Runtime runtime, Chain& chain, ChainSums::PathOf path_of, std::string name);

  uint64_t size() const override { return chain_.size(); }
  uint32_t preferred_block_size() const override { return chain_.preferred_block_size(); }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override { return chain_.flush(); }
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override {
    return chain_.extents(offset, length, count_max);
  }

 private:
  static constexpr uint64_t kPartsInFlightMax = 16;  // each holds a cluster
  static constexpr uint64_t kRecentBytesMax = 1 << 20;
  static constexpr size_t kReportedMax = 1000;

  using Sums = std::vector<std::optional<Sum>>;
  /// A cluster that was read whole, for a part of it, and is what was sent.
  struct Whole {
    GuestCluster cluster;
    std::vector<std::byte> bytes;
  };

  io::Task<Sums> sums_of(GuestCluster first, uint64_t count);
  io::Task<void> read_whole(GuestCluster first, std::span<std::byte> into,
                            std::span<const std::optional<Sum>> sums);
  io::Task<void> read_part(uint64_t offset, std::span<std::byte> into, std::optional<Sum> sum);
  io::Task<void> refuse(GuestCluster cluster);
  std::shared_ptr<const Whole> recent(GuestCluster cluster);
  void keep(std::shared_ptr<const Whole> whole);

  Chain& chain_;
  ChainSums sums_;
  const std::string name_;
  const Geometry& geometry_;  // of the top
  io::Semaphore parts_;
  std::list<std::shared_ptr<const Whole>> recent_;  // newest first
  std::set<GuestCluster> reported_;                 // clusters that the log has named
};

}  // namespace qcow
