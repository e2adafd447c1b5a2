// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/options.h"
#include "engine/restore/copier.h"
#include "io/block_device.h"
#include "io/ring.h"
#include "io/runtime.h"

namespace app {

/// Where a disk is pulled from: a file, a block device, or an export of an NBD server. It is read
/// and never written; only trim() changes it. Belongs to the ring's thread.
class PullSource {
 public:
  virtual ~PullSource() = default;

  /// Throws std::runtime_error that names the disk's source, UsageError for bad credentials.
  static io::Task<std::unique_ptr<PullSource>> open(io::Ring& ring, io::Runtime runtime,
                                                    PullDisk disk, const PullOptions& options);

  virtual uint64_t size() const = 0;
  /// Several ways to the same bytes, at least one.
  virtual std::vector<io::BlockDevice*> devices() = 0;
  /// The bytes that requests must be multiples of.
  virtual uint64_t block_bytes() const { return 1; }

  /// What has changed of a range, as CopyOptions::plan wants it; `everything`: what holds data.
  virtual io::Task<std::vector<engine::CopyRange>> plan(uint64_t offset, uint64_t length,
                                                        uint64_t& until, bool everything) = 0;

  /// Throws std::runtime_error when the source has another size than when it was opened: what was
  /// cut off reads as zeroes, and must not be taken for what the disk holds.
  virtual io::Task<void> require_unchanged() { co_return; }
  /// It has only what differs from what it stands on, and does not know the rest.
  virtual bool needs_parent() const { return false; }

  /// Gives the space of a range back: of NBD servers that take TRIM.
  virtual io::Task<void> trim(uint64_t, uint64_t) { co_return; }
  virtual bool can_trim() const { return false; }

  /// Fails the requests that are under way, where they can be given up.
  virtual void abort() noexcept {}
  /// Ends what is open, after a failure too. Never throws.
  virtual io::Task<void> close() = 0;
};

}  // namespace app
