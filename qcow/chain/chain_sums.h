// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/runtime.h"
#include "io/sync.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/sums_reader.h"

namespace qcow {

/// What the manifests of a chain's layers say that its clusters hold. A hint and no proof: the
/// files may have changed since, or say what is wrong.
///
/// A layer without a manifest, with a damaged one or with another image's says nothing, as one
/// whose clusters have another size. Memory is bounded: 4 MiB of blocks of clusters of 64 KiB.
/// Belongs to one executor thread; the chain outlives it. Spec: docs/manifest.md.
class ChainSums {
 public:
  /// Where the manifest of the image at a path lies.
  using PathOf = std::function<std::string(std::string_view image_path)>;

  ChainSums(io::Runtime runtime, Chain& chain, PathOf path_of);

  /// Of clusters [first, first + count), as large as those of the chain's top; nothing where
  /// nothing is known. Throws what looking up the chain's tables throws.
  io::Task<std::vector<std::optional<Sum>>> sums_of(GuestCluster first, uint64_t count);

 private:
  static constexpr size_t kBlocksMax = 32;

  /// A block spread out.
  struct Block {
    size_t layer = 0;
    uint64_t l1_index = 0;
    std::vector<std::optional<Sum>> sums;  // empty when the layer says nothing of the range
  };
  /// The manifest of a layer; null when it says nothing.
  struct Manifest {
    bool opened = false;
    std::unique_ptr<SumsReader> reader;
  };

  io::Task<std::shared_ptr<const Block>> block(size_t layer, uint64_t l1_index);
  std::shared_ptr<const Block> find(size_t layer, uint64_t l1_index);
  io::Task<std::shared_ptr<const Block>> load(size_t layer, uint64_t l1_index);
  io::Task<SumsReader*> manifest_of(size_t layer);

  io::Runtime runtime_;
  Chain& chain_;
  const PathOf path_of_;
  const Geometry& geometry_;  // of the top
  std::vector<Manifest> manifests_;
  std::list<std::shared_ptr<const Block>> blocks_;  // most recently used first
  io::Semaphore loading_;  // so that many who want the same block read it once
};

}  // namespace qcow
