// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "app/options.h"
#include "app/pull/hub.h"
#include "engine/restore/copier.h"
#include "qcow/format/sums.h"

/// What the newest point of a VM lacks, as the server says it: docs/verify.md, "Healing".
namespace app {

/// A cluster that is damaged in the newest point, and how to know its content.
struct WantedCluster {
  uint64_t offset = 0, length = 0;  ///< bytes of the disk; less than a cluster at its end
  enum class Known : uint8_t { zero, by_sum, nothing } known = Known::nothing;
  qcow::Sum sum{};  ///< by_sum; of a whole cluster, with zeroes behind the disk's end

  /// `cluster`: a whole one, with zeroes behind the disk's end.
  bool is(std::span<const std::byte> cluster) const;
};

struct WantedOfDisk {
  uint32_t index = 0;
  std::string label;                 ///< as registered
  std::string backup_id, change_id;  ///< of the newest point
  uint64_t size_bytes = 0, cluster_bytes = 0;
  uint64_t registered_bytes = 0;        ///< another size than the point's: it grew or shrank since
  std::vector<WantedCluster> clusters;  ///< ascending
};

struct Wanted {
  std::vector<WantedOfDisk> disks;           ///< as registered, ascending
  bool complete = true;                      ///< else more may be damaged than is named
  std::vector<std::string> damaged_backups;  ///< older ones, which stay damaged

  uint64_t bytes() const;
};

/// Throws PullRefused when the newest point cannot be healed alone: a registered disk has no point,
/// has another size since, or another newest backup. Throws ServerRefused.
Wanted read_wanted(Hub& hub, const std::string& vm_name, const std::string& repository_id);

/// Neighbouring clusters as one range.
std::vector<engine::CopyRange> ranges_of(const std::vector<WantedCluster>& clusters);
uint64_t bytes_of(const std::vector<WantedCluster>& clusters);

}  // namespace app
