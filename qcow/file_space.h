#pragma once

#include <cstdint>
#include <functional>

#include "io/file.h"
#include "io/task_scope.h"
#include "qcow/disk_share.h"

namespace qcow {

/// Keeps the file allocated ahead of its last used byte, because writing into space that is
/// already there costs a third of extending the file write by write.
///
/// Never a failure: a file system that cannot allocate, or is full, is found out by the write that
/// really needs the space. LT10: at most one step beyond the used end.
/// Belongs to one ring thread.
class FileSpace {
 public:
  /// `step`: bytes that are allocated at once, fewer where the share says so. `bytes_max`: an end
  /// that the file can never need to pass. `share` may be null, and outlives this object.
  FileSpace(io::File& file, const DiskShare* share, uint64_t step, uint64_t file_bytes,
            uint64_t bytes_max)
      : file_(file),
        share_(share),
        step_(step),
        fresh_from_(file_bytes),
        end_(file_bytes),
        bytes_max_(bytes_max) {}

  /// Called when an allocation ended, with or without success; throws nothing.
  void on_change(std::function<void()> callback) { on_change_ = std::move(callback); }

  /// Bytes below `end` are, or will be, written. Starts an allocation when little is left.
  void use(uint64_t end) noexcept;

  /// True while the space below `end` is on its way, so that waiting pays.
  bool is_coming(uint64_t end) const { return growing_ && end > end_ && end <= growing_to_; }

  /// Bytes [from, end) were allocated by this object, so they read as zero until they are written.
  bool is_fresh(uint64_t from, uint64_t end) const { return from >= fresh_from_ && end <= end_; }

  /// The file is at least this long, unless somebody else has cut it.
  uint64_t allocated_end() const { return end_; }

  /// Starts no further allocation, and waits for the one under way.
  io::Task<void> stop();

 private:
  io::Task<void> grow(uint64_t to);

  io::File& file_;
  const DiskShare* const share_;
  const uint64_t step_;
  const uint64_t fresh_from_;
  uint64_t end_;
  uint64_t bytes_max_;
  uint64_t growing_to_ = 0;
  bool growing_ = false;
  bool off_ = false;
  std::function<void()> on_change_;
  io::TaskScope scope_;
};

}  // namespace qcow
