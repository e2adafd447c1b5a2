// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <system_error>

#include "io/file.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "qcow/image/disk_share.h"

namespace qcow {

/// The file system, or the quota, has no room for what was about to be accepted. The step that
/// asked has changed nothing, nothing accepted is lost, and the next try may succeed.
class NoSpace : public std::system_error {
 public:
  explicit NoSpace(const std::system_error& cause) : std::system_error(cause) {}
};

/// Keeps the file allocated ahead of its last used byte: writing into space that is already there
/// costs a third of extending the file write by write, and who asks first knows that the space is
/// there before anything is accepted.
///
/// A file system that cannot allocate is found to be full by the write that needs the space. At
/// most one step is allocated beyond what is used or promised. Belongs to one ring thread.
class FileSpace {
 public:
  struct Bytes {
    uint64_t file = 0;       ///< the file's length
    uint64_t allocated = 0;  ///< how far it is used; what lies behind may be a hole
    uint64_t max = 0;        ///< an end that it need not pass, as far as is known
  };

  /// `step`: bytes that are allocated at once, fewer where the share says so. `share` may be null,
  /// and outlives this object.
  FileSpace(io::Executor& executor, io::File& file, const DiskShare* share, uint64_t step,
            Bytes bytes)
      : file_(file),
        share_(share),
        step_(step),
        ahead_(step),
        fresh_from_(bytes.file),
        end_(bytes.allocated),
        bytes_max_(bytes.max),
        grown_(executor) {}

  /// Called when an allocation ended, with or without success; throws nothing.
  void on_change(std::function<void()> callback) { on_change_ = std::move(callback); }

  /// Bytes below `end` are, or will be, written. Starts an allocation when little is left.
  void use(uint64_t end) noexcept;

  /// Whether reserve() has nothing to do.
  bool covers(uint64_t end) const { return off_ || std::min(end, bytes_max_) <= end_; }
  /// Returns once the bytes below `end` are allocated, if the file system can allocate, or when an
  /// attempt has failed for another reason than lack of space: the next call tries again. Throws
  /// NoSpace.
  io::Task<void> reserve(uint64_t end);

  /// So many bytes more will be needed than was known.
  void expect_more(uint64_t bytes) { bytes_max_ += bytes; }

  enum class Filled : uint8_t {
    yes,      ///< or the file system cannot allocate
    no,       ///< it is full
    unknown,  ///< the attempt failed
  };
  /// Allocates a part of the file that is not in use and may be a hole.
  io::Task<Filled> fill(uint64_t offset, uint64_t length);

  /// Bytes to be allocated beyond what is used.
  uint64_t ahead() const {
    return share_ == nullptr ? ahead_ : std::min(ahead_, share_->step_max());
  }

  /// True while the space below `end` is on its way, so that waiting pays.
  bool is_coming(uint64_t end) const { return growing_ && end > end_ && end <= growing_to_; }

  /// Bytes [from, end) were allocated by this object, so they read as zero until they are written.
  bool is_fresh(uint64_t from, uint64_t end) const { return from >= fresh_from_ && end <= end_; }

  /// The file is at least this long, unless somebody else has cut it.
  uint64_t allocated_end() const { return end_; }

  /// Starts no further allocation, and waits for the one under way.
  io::Task<void> stop();

 private:
  void attempt_failed(const std::exception& failure) noexcept;
  void start(uint64_t to, uint64_t least);
  io::Task<void> grow(uint64_t to, uint64_t least);
  io::Task<bool> try_to_grow(uint64_t to);

  io::File& file_;
  const DiskShare* const share_;
  const uint64_t step_;
  uint64_t ahead_;  // less than a step while space is short
  const uint64_t fresh_from_;
  uint64_t end_;
  uint64_t bytes_max_;
  uint64_t growing_to_ = 0;
  bool growing_ = false;
  bool off_ = false;
  bool broken_ = false;  // the last attempt failed, and not for lack of space
  bool told_ = false;
  std::exception_ptr full_;  // how the last attempt failed, if for lack of space
  io::Event grown_;
  std::function<void()> on_change_;
  io::TaskScope scope_;
};

}  // namespace qcow
