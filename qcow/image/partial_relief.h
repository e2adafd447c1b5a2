// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "qcow/image/cluster_writer.h"
#include "qcow/image/elision.h"

namespace qcow {

/// Completes partial clusters from below, when a commit wants them or when their memory runs
/// short. Belongs to one executor thread; outlives its tasks.
class PartialRelief {
 public:
  /// `elision` may be null.
  PartialRelief(ImageParts& parts, ImageReader& reader, ClusterWriter& writer, Elision* elision);

  /// More memory than partial clusters shall have.
  bool due() const { return partials_.memory_bytes() > bytes_max_; }
  /// So much more that who brings more bytes waits.
  bool overdue() const { return partials_.memory_bytes() > 2 * bytes_max_; }
  /// Brings the memory under its bound, the oldest first. One operation at a time does it; others
  /// wait only when it falls behind. Nothing may be held.
  io::Task<void> relieve();
  /// Who waits for another's relief finds out why it will not come.
  void wake() noexcept { relieved_.wake(); }

  /// Completes and submits all that there are now. Nothing may be held.
  io::Task<void> complete_all() { return complete(partials_.all()); }
  bool idle() const { return partials_.empty(); }
  /// Fills what is missing from below. The cluster is held, so nothing else changes it; and it
  /// stays among the partial clusters, so that a failure loses nothing that was accepted.
  io::Task<void> fill_gaps(GuestCluster cluster);

 private:
  io::Task<void> complete(std::vector<GuestCluster> clusters);
  io::Task<void> complete_one(GuestCluster cluster);

  const uint64_t bytes_max_;
  PartialClusters& partials_;
  RangeQueue& ranges_;
  ImageFailure& failure_;
  ImageReader& reader_;
  ClusterWriter& writer_;
  Elision* const elision_;  // or null
  bool relieving_ = false;
  io::Event relieved_;
};

}  // namespace qcow
