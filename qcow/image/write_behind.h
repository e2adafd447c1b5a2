// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "io/executor.h"
#include "io/file.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "qcow/format/geometry.h"
#include "qcow/image/disk_share.h"
#include "qcow/image/file_space.h"

namespace qcow {

/// The data writes of an image: accepted at once, done soon, a few at a time.
///
/// A few writes in flight keep a disk busy; what waits behind them is merged with its neighbour
/// in the file. Every write belongs to an epoch: drain(e) returns when all writes submitted in
/// epochs up to e are on the disk (not yet durable), which is how a commit knows that a mapping
/// names only data that was written. After the first failure nothing more is written, and what was
/// accepted until then and is not on the disk is lost().
///
/// Invariant: what is counted is in a list or in a write under way. Only submit() needs memory that
/// it may have to refuse for, and it takes it before it counts; a write that cannot be begun for
/// lack of memory is a failure like one that the disk reports.
/// Belongs to one ring thread.
class WriteBehind {
 public:
  struct Limits {
    size_t writes_in_flight = 8;  ///< whole ones; of small ones four times as many
    size_t merged_bytes = 1 << 20;
    std::shared_ptr<DiskShare> disk = nullptr;  ///< of all who write to it; null: nobody else does
  };

  WriteBehind(io::Executor& executor, io::File& file, FileSpace& space, Limits limits,
              std::function<void(std::exception_ptr)> on_failure);  // which throws nothing

  /// Writes `bytes` at `at` some time soon. `owner` keeps the bytes alive and is let go when they
  /// are written. Throws std::bad_alloc, and has done nothing then.
  void submit(HostOffset at, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  /// Ends the current epoch and returns it. The one before must have been drained.
  unsigned begin_epoch();
  io::Task<void> drain(unsigned epoch);
  io::Task<void> drain_all();
  /// What drain() waits for.
  bool drained(unsigned epoch) const { return outstanding_[epoch] == 0; }
  bool idle() const { return outstanding_[0] + outstanding_[1] == 0; }

  /// Waits for the writes in flight; drops what has not started after a failure.
  io::Task<void> stop();

  /// Never writes what has not started yet.
  void abandon() noexcept;

  /// Whether any of these bytes was accepted and never reached the disk, after a failure.
  bool lost(HostOffset at, uint64_t length) const;

 private:
  struct Segment {
    HostOffset at;
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
    unsigned epoch;
  };
  using Segments = std::list<Segment>;
  static constexpr size_t kPiecesMax = 256;
  /// A small write keeps the disk busy for a quarter of the time that a whole one takes.
  static constexpr size_t kWhole = 4, kSmallBytes = 32 << 10;
  static constexpr size_t kSpareMax = 64;  // segments kept to be used again

  void pump() noexcept;
  bool may_start_another() const;
  void started(size_t load);
  void ended(size_t load);
  Segments take_next() noexcept;
  io::Task<void> write_next();
  void give_up(std::exception_ptr failure) noexcept;
  void ended(Segments::iterator first, Segments::iterator end) noexcept;
  void done(Segments& segments) noexcept;
  void lose(Segments& segments) noexcept;
  void drop_pending() noexcept;

  io::File& file_;
  FileSpace& space_;
  Limits limits_;
  std::function<void(std::exception_ptr)> on_failure_;
  Segments pending_;
  Segments spare_;
  Segments lost_;         // their bytes and owners are gone
  size_t in_flight_ = 0;  // quarters of a whole write
  bool failed_ = false;
  bool pumping_ = false;
  unsigned epoch_ = 0;
  std::array<uint64_t, 2> outstanding_{};
  io::Event drained_;
  io::TaskScope scope_;
};

}  // namespace qcow
