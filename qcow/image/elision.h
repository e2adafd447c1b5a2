// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "qcow/chain/chain_sums.h"
#include "qcow/image/image_parts.h"
#include "qcow/image/image_reader.h"

namespace qcow {

/// Finds written clusters that the image reads the same without them, so that they need not be
/// stored (WP13).
///
/// Invariant: nothing is left out that was not compared byte by byte with what the chain gives. The
/// manifests of the parents only suggest where comparing is worth a read; so wrong or colliding
/// checksums cost space, never bytes. What cannot be read is not equal, and is stored.
/// Comparisons under way take 4 MiB at most. Belongs to one executor thread; outlives its tasks.
class Elision {
 public:
  Elision(ImageParts& parts, ImageReader& reader);

  /// Which of `count` whole clusters, held by the caller, equal what the parents hold while nothing
  /// is stored of them here: [i] for first + i, whose content has the checksum sums[i]. Throws
  /// FormatError for a corrupt entry of this image.
  io::Task<std::vector<bool>> find_equal(GuestCluster first, uint64_t count, const std::byte* bytes,
                                         std::span<const Sum> sums);

  /// Fills what is missing of the partial cluster, held by the caller, from below. True, and it is
  /// as it was, when all that was written to it is what is below.
  io::Task<bool> fill_or_find_equal(GuestCluster cluster, PartialCluster& partial);

 private:
  io::Task<std::vector<bool>> suggested(GuestCluster first, uint64_t count,
                                        std::span<const Sum> sums);
  io::Task<void> confirm(GuestCluster first, uint64_t count, const std::byte* bytes,
                         std::vector<bool>& equal, uint64_t at);
  void tell(const std::exception& failure);

  io::BufferPool& buffers_;
  const Geometry& geometry_;
  Chain& parents_;
  ClusterMap& map_;
  ImageReader& reader_;
  ChainSums sums_;
  io::Semaphore comparing_;  // bytes
  bool told_ = false;
};

}  // namespace qcow
