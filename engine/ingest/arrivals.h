// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/ingest/arrival_log.h"
#include "engine/ingest/coverage.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "qcow/image/image.h"

namespace engine {

/// What of a disk has arrived: in this transfer, and in the interrupted one that it resumes.
///
/// What an earlier transfer has left counts only once the image was read and compared with the
/// checksums of what was sent: when a client asks, before a write changes a part of a cluster, and
/// before the seal. What differs has not arrived, must be sent again before the seal, and the
/// cluster is as in the parents until then.
/// What is sent a second time may be other bytes: before such a write the log says that what was
/// there has not arrived, of the 256 MiB around it, until the next save.
/// Invariant: a byte is in at most one of kept_ and lost_, and none of them in covered().
/// With a log, what arrives is saved there every 256 MiB or 5 s, after a flush of the image;
/// writers wait where more than 768 MiB would be sent again after a crash. Belongs to one executor
/// thread; stop() it before it is destroyed. Spec: docs/jobs.md, "Resume".
class Arrivals {
 public:
  static constexpr uint64_t kSaveBytes = 256 << 20;
  static constexpr uint64_t kUnsavedBytesMax = 768 << 20;
  static constexpr uint64_t kConfirmBytesAtOnce = 64 << 20;

  /// `log`: null when nothing is to be kept; `kept`: what it says has arrived, when it was opened.
  Arrivals(io::Runtime runtime, std::unique_ptr<ArrivalLog> log, Coverage kept);
  ~Arrivals();

  /// As ImageOptions::on_sum.
  void note_sum(qcow::GuestCluster cluster, const qcow::Sum* sum) noexcept;
  /// Once the image is open; `counters` are those of the whole transfer.
  void start(qcow::Image& image, std::function<DiskCounters()> counters);

  /// There is a log.
  bool are_saved() const { return log_ != nullptr; }
  /// More is unsaved than may be lost: `co_await saved()` before the next write.
  bool is_behind() const {
    return saves_ && new_.covered_bytes() + saving_bytes_ >= kUnsavedBytesMax;
  }
  io::Task<void> saved();
  /// Something of an earlier transfer was not looked at yet.
  bool has_kept() const { return !kept_.empty(); }
  /// Before a write or zeroing of a range reaches the image, when has_kept().
  io::Task<void> before_write(uint64_t offset, uint64_t length);
  /// The log may say that some of a range has arrived: around a write there, begin_again() and
  /// end_again(). Throws what the log throws.
  bool is_again(uint64_t offset, uint64_t length) const {
    return are_saved() && (covered_.intersects(offset, length) || kept_.intersects(offset, length));
  }
  io::Task<void> begin_again(uint64_t offset, uint64_t length);
  void end_again(uint64_t offset, uint64_t length) noexcept;
  /// It has been accepted.
  void note(uint64_t offset, uint64_t length);

  /// Makes sure of what has arrived of a range. Returns how much of it, from the front, is known
  /// now: all, or enough for one answer.
  io::Task<uint64_t> confirm(uint64_t offset, uint64_t length);
  /// Of everything. Throws a sentence when something is not as it was sent and did not come again.
  io::Task<void> confirm_all();

  /// What has arrived, as far as it is known to be so.
  const Coverage& covered() const { return covered_; }
  /// The same with what nobody has asked for yet.
  uint64_t arrived_bytes() const { return covered_.covered_bytes() + kept_.covered_bytes(); }

  /// Durable in the log on return. Throws the image's failure, or the log's.
  io::Task<void> save();
  /// No saves in the background any more.
  io::Task<void> stop();

 private:
  io::Task<void> append(ArrivalRecord record);
  io::Task<void> save_in_background();
  io::Task<uint64_t> confirm_clusters(qcow::GuestCluster first, uint64_t count);
  io::Task<void> renew_clusters(std::vector<qcow::GuestCluster> clusters);
  Coverage take_unsaved();
  qcow::GuestCluster cluster_of(uint64_t offset) const {
    return geometry_.cluster_of(qcow::GuestOffset{offset});
  }

  io::Runtime runtime_;
  const std::unique_ptr<ArrivalLog> log_;
  qcow::Image* image_ = nullptr;
  std::function<DiskCounters()> counters_;
  qcow::Geometry geometry_;  // the image's

  Coverage covered_;
  Coverage kept_, lost_;  // by an earlier transfer: not looked at yet; not as it was sent
  io::Mutex confirming_;

  // Since the last save.
  Coverage new_;
  Coverage withdrawn_;                           // in the log, until the next save
  std::vector<Coverage::Range> sent_again_now_;  // writes under way, once for each
  std::vector<ArrivalRecord::Entry> new_sums_;
  uint64_t saving_bytes_ = 0;  // taken from new_, and not in the log yet
  io::Mutex saving_;
  io::Event due_, saved_;
  bool saves_ = false;  // in the background
  io::TaskScope background_;
};

}  // namespace engine
