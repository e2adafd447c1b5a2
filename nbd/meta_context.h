// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/block_device.h"
#include "io/clock.h"
#include "io/runtime.h"
#include "io/task.h"
#include "nbd/protocol.h"

/// Metadata contexts: the ways in which BLOCK_STATUS describes an export (M1–M10).
namespace nbd {

/// One way to describe an export's ranges: a reading of its device's extents, so that one walk over
/// these answers for all contexts. Immutable; any thread.
class MetaContext {
 public:
  virtual ~MetaContext() = default;

  /// "base:allocation".
  virtual std::string_view name() const = 0;

  /// Appends what the extent at `offset` is to `runs`, which end there.
  virtual void describe(uint64_t offset, const io::Extent& extent,
                        std::vector<StatusRun>& runs) const = 0;
};

using MetaContexts = std::vector<std::shared_ptr<const MetaContext>>;

/// `base:allocation` and `qemu:allocation-depth` (M1, M2).
MetaContexts allocation_contexts();

/// A restore point that the exported image stands on.
struct Ancestor {
  std::string point;   ///< its name among clients
  uint64_t bytes = 0;  ///< its size
};

/// `qemu:dirty-bitmap:since-<point>` for each ancestor, the nearest first (M3): bit 0 is set where
/// a newer layer answers, and past the end of the point and of each layer above it, where a disk
/// that grew again holds zeroes that no client wrote. Ancestors without a name have no context.
MetaContexts change_contexts(std::span<const Ancestor> ancestors);

/// The same for points that share nothing with the exported image: all of it differs.
MetaContexts changed_entirely(std::span<const std::string> points);

/// Indices into `contexts` that the queries of SET_META_CONTEXT select, each once, in the order of
/// `contexts`; unknown ones are ignored (M5, M7).
std::vector<size_t> select_contexts(const MetaContexts& contexts,
                                    std::span<const std::string> queries);

/// The same for LIST_META_CONTEXT, where no query means all, and a namespace is a wildcard (M4).
std::vector<size_t> list_contexts(const MetaContexts& contexts,
                                  std::span<const std::string> queries);

/// How much one BLOCK_STATUS answer may hold and cost (M10).
struct StatusBounds {
  size_t runs_max = 65536;
  io::Duration work_max = std::chrono::milliseconds(30);
};

/// The answer to BLOCK_STATUS, context by context: runs that start at `offset`, alternate in value
/// and never pass `length`; exactly one with `one` (M8, M9). At least one, whatever the bounds,
/// which hold for all contexts together.
io::Task<std::vector<std::vector<StatusRun>>> block_status(io::BlockDevice& device,
                                                           std::vector<const MetaContext*> contexts,
                                                           uint64_t offset, uint64_t length,
                                                           bool one, io::Runtime runtime,
                                                           StatusBounds bounds);

}  // namespace nbd
