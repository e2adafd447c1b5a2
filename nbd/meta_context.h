#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/block_device.h"
#include "io/clock.h"
#include "io/task.h"
#include "nbd/protocol.h"

/// Metadata contexts: the ways in which BLOCK_STATUS describes an export (M1–M10).
namespace nbd {

/// One way to describe an export's ranges. Belongs to the export's thread, except for its name,
/// which never changes.
class MetaContext {
 public:
  virtual ~MetaContext() = default;

  /// "base:allocation".
  virtual std::string_view name() const = 0;

  /// Describes the range from `offset` in at most `count_max` runs, at least one; neighbours may be
  /// alike, and the runs may stop short of `length`, but never pass it.
  virtual io::Task<std::vector<StatusRun>> describe(uint64_t offset, uint64_t length,
                                                    size_t count_max) = 0;
};

/// `base:allocation` and `qemu:allocation-depth` of a device, which outlives them (M1, M2).
std::vector<std::shared_ptr<MetaContext>> allocation_contexts(io::BlockDevice& device);

/// Indices into `contexts` that the queries of SET_META_CONTEXT select, each once, in the order of
/// `contexts`; what nobody knows is ignored (M5, M7).
std::vector<size_t> select_contexts(std::span<const std::shared_ptr<MetaContext>> contexts,
                                    std::span<const std::string> queries);

/// The same for LIST_META_CONTEXT, where no query means all, and a namespace is a wildcard (M4).
std::vector<size_t> list_contexts(std::span<const std::shared_ptr<MetaContext>> contexts,
                                  std::span<const std::string> queries);

/// How much one BLOCK_STATUS answer may hold and cost (M10).
struct StatusBounds {
  size_t runs_max = 65536;
  io::Duration work_max = std::chrono::milliseconds(100);
};

/// The answer to BLOCK_STATUS for one context: runs that start at `offset`, alternate in value and
/// never pass `length`; exactly one with `one` (M8, M9). At least one, whatever the bounds.
io::Task<std::vector<StatusRun>> block_status(MetaContext& context, uint64_t offset,
                                              uint64_t length, bool one, const io::Clock& clock,
                                              StatusBounds bounds);

}  // namespace nbd
