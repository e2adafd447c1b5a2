// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ingest/change_contexts.h"
#include "engine/values/types.h"
#include "io/runtime.h"
#include "nbd/export.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/verified_chain.h"
#include "qcow/image/image.h"

namespace engine {

/// A disk that can be served, before it is.
struct DiskToServe {
  nbd::ExportSpec spec;  ///< but for the contexts of its ancestors
  std::string job_id, vm_name;
  uint32_t disk_index = 0;
  std::string path;
  std::string repository_directory;  ///< parents must lie in here; "": anywhere
  std::vector<Ancestor> ancestors;   ///< the point itself and those below it, or below the overlay
  std::vector<std::string> apart;    ///< ids of older backups that share nothing with it
  bool writable = false;
  bool verified = false;  ///< what is read of a point is compared with what was sent
  std::optional<uint64_t> size_limit_bytes;  ///< of an overlay's file
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;
};

/// A point's chain, or an overlay, with its export. Belongs to the data thread of its runtime.
class ServedDisk {
 public:
  /// On failure nothing stays open.
  static io::Task<std::unique_ptr<ServedDisk>> open(io::Runtime data, DiskToServe disk);

  /// After close().
  ~ServedDisk();

  const std::shared_ptr<nbd::Export>& exported() const { return export_; }

  /// Ends the connections and what is below; an overlay is durable and clean then, or its failure
  /// is logged. `reason`: for those who are connected, who have a second to leave.
  io::Task<void> close(std::optional<std::string> reason);

 private:
  class Capped;
  ServedDisk() = default;

  std::unique_ptr<qcow::Chain> chain_;  // of a point
  std::unique_ptr<qcow::VerifiedChain> verified_;
  std::unique_ptr<qcow::Image> image_;  // an overlay
  std::unique_ptr<Capped> capped_;
  std::shared_ptr<nbd::Export> export_;
};

}  // namespace engine
