// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/runtime.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "qcow/format/geometry.h"
#include "qcow/format/sums.h"

namespace qcow {

/// The checksums of an image's clusters while it is being written, in the order of the writes.
///
/// What is noted last of a cluster holds. Memory is bounded whatever the disk's size: full lists
/// are sorted and go to a file without a name, which costs 24 bytes for each cluster. Nothing of it
/// survives a crash. note() and forget() run without a suspension point, and need no memory; who
/// calls them often waits for room() before. Belongs to one executor thread.
class SumLog {
 public:
  struct Entry {
    GuestCluster cluster;
    std::optional<Sum> sum;  ///< nothing: its content is not known any more
  };
  static constexpr size_t kListEntries = 64 << 10;

  /// `scratch_path`: of a file that is made when it is needed, and loses its name at once.
  SumLog(io::Runtime runtime, std::string scratch_path, size_t list_entries = kListEntries);

  void note(GuestCluster cluster, const Sum& sum) noexcept;
  void forget(GuestCluster cluster) noexcept;
  /// Called with each entry from now on; throws nothing. For who keeps them over a crash.
  void tell(std::function<void(const Entry&)> listener) { listener_ = std::move(listener); }

  bool has_room() const { return list_.size() < list_entries_; }
  /// Makes room. Throws what the scratch file throws.
  io::Task<void> make_room();

  /// For the end: no entry comes any more, and take() may be called.
  io::Task<void> finish();
  /// The last entry of each cluster below `end`, ascending; those that were taken are left out.
  io::Task<std::vector<Entry>> take(GuestCluster end);
  /// An entry was lost for lack of room: nothing that take() gives can be relied upon.
  bool incomplete() const { return incomplete_; }

 private:
  static constexpr uint64_t kForgotten = uint64_t{1} << 63;
  struct Packed {
    uint64_t index = 0;  // of the cluster, and kForgotten
    Sum sum{};
    GuestCluster cluster() const { return {index & ~kForgotten}; }
  };
  using List = std::vector<Packed>;
  /// A sorted list in the file.
  struct Run {
    uint64_t offset = 0, entries = 0;
  };
  /// Where reading a run, or the list in memory, has got to.
  struct Source {
    Run rest;
    List ahead;
    size_t next = 0;
    bool ended() const { return next == ahead.size() && rest.entries == 0; }
  };
  static constexpr size_t kEntryBytes = 24, kReadEntries = 512, kRunsMax = 256;

  void put(const Packed& entry) noexcept;
  static void sort(List& list);
  io::Task<void> open_scratch();
  io::Task<Run> write_run(const List& list);
  io::Task<void> merge_runs();
  io::Task<void> refill(Source& source);
  io::Task<List> take_from(std::vector<Source>& sources, GuestCluster end, size_t count_max);
  std::vector<Source> sources_of_runs() const;

  io::Runtime runtime_;
  const std::string scratch_path_;
  const size_t list_entries_;
  std::function<void(const Entry&)> listener_;
  List list_;
  bool incomplete_ = false;
  std::unique_ptr<io::File> scratch_;
  uint64_t scratch_bytes_ = 0;
  std::vector<Run> runs_;  // oldest first
  bool making_room_ = false;
  io::Event made_room_;
  std::vector<Source> sources_;  // once finished
};

}  // namespace qcow
