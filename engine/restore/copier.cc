// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/copier.h"

#include <algorithm>
#include <cassert>
#include <deque>
#include <set>
#include <utility>

#include "io/sync.h"
#include "io/task_scope.h"
#include "qcow/format/zero_check.h"

namespace engine {
namespace {

constexpr uint64_t kPlanBytes = uint64_t{1} << 30;  // asked about at once
constexpr size_t kExtentsAtOnce = 4096;
constexpr io::Duration kProgressInterval = std::chrono::milliseconds(500);

/// One copy: workers that take the next piece, and whoever comes first when there is none plans on.
class Copy {
 public:
  Copy(io::Runtime runtime, CopyOptions options)
      : runtime_(runtime),
        options_(std::move(options)),
        planned_(runtime.executor),
        ended_(runtime.executor),
        failing_(runtime.executor) {
    assert(!options_.sources.empty() && !options_.targets.empty());
    progress_.size = options_.sources.front()->size();
    planned_until_ = progress_.done_until = options_.start;
  }

  io::Task<CopyProgress> run() {
    const auto work = [this](io::TaskScope& scope) -> io::Task<void> {
      for (uint32_t i = 0; i < options_.requests; ++i) {
        for (size_t at = 0; at < options_.sources.size(); ++at) {
          ++workers_;
          scope.spawn(
              copy_pieces(*options_.sources[at], *options_.targets[at % options_.targets.size()]));
        }
      }
      co_await report();
    };
    co_await io::run_scoped(work);
    io::Outcome<> flushed =
        co_await io::attempt([this] { return options_.targets.front()->flush(); });
    if (flushed.failed()) {
      target_failed_ = true;
      note_failure();
    }
    flushed.take();
    progress_.done_until = progress_.size;
    if (options_.on_progress) co_await options_.on_progress(progress_);
    co_return progress_;
  }

 private:
  io::Task<void> copy_pieces(io::BlockDevice& source, io::BlockDevice& target) {
    io::Outcome<> copied = co_await io::attempt([&] { return copy_until_end(source, target); });
    if (copied.failed()) note_failure();
    planned_.wake();
    if (--workers_ == 0) ended_.set();
    copied.take();
  }

  io::Task<void> copy_until_end(io::BlockDevice& source, io::BlockDevice& target) {
    for (;;) {
      const std::optional<CopyRange> piece = co_await next_piece();
      if (!piece) co_return;
      const auto under_way = under_way_.insert(piece->offset).first;
      if (piece->zero) {
        co_await make_zero(target, *piece);
      } else {
        co_await pace(piece->length);
        if (failed_) co_return;
        co_await copy_data(source, target, *piece);
      }
      if (options_.on_accepted) options_.on_accepted(*piece);
      under_way_.erase(under_way);
      note_done();
    }
  }

  void note_failure() {
    if (std::exchange(failed_, true)) return;
    failing_.set();
    if (options_.on_failure) options_.on_failure(target_failed_);
  }

  io::Task<void> copy_data(io::BlockDevice& source, io::BlockDevice& target, CopyRange piece) {
    io::Buffer bytes = co_await runtime_.buffers.acquire(piece.length, piece.offset);
    co_await source.read(piece.offset, bytes.bytes());
    if (options_.find_zeroes && qcow::is_zero(bytes.bytes())) {
      bytes = io::Buffer();
      co_await make_zero(target, piece);
      co_return;
    }
    const auto write = [&] { return target.write(piece.offset, std::move(bytes)); };
    co_await at_target(write);
    progress_.data += piece.length;
  }

  io::Task<void> make_zero(io::BlockDevice& target, CopyRange piece) {
    if (!options_.target_is_zero) {
      const auto zero = [&] {
        return target.write_zeroes(piece.offset, piece.length, io::ZeroMode::may_unmap);
      };
      co_await at_target(zero);
    }
    progress_.zeroes += piece.length;
  }

  /// Notes whose failure it is.
  template <class Work>
  io::Task<void> at_target(Work work) {
    io::Outcome<> done = co_await io::attempt(work);
    if (done.failed() && !failed_) target_failed_ = true;
    done.take();
  }

  /// Waits for the turn of a request; the turns of all lie so far apart that the rate is kept.
  io::Task<void> pace(uint64_t bytes) {
    if (options_.bytes_per_second == 0) co_return;
    const io::SteadyTime now = runtime_.clock.now();
    const io::SteadyTime turn = std::max(now, next_turn_);
    const std::chrono::duration<double> takes(static_cast<double>(bytes) /
                                              static_cast<double>(options_.bytes_per_second));
    next_turn_ = turn + std::chrono::duration_cast<io::Duration>(takes);
    // One waiter's time wakes the others too.
    while (!failed_ && turn > runtime_.clock.now()) {
      co_await io::wait_for(runtime_.executor, runtime_.clock, failing_,
                            turn - runtime_.clock.now());
    }
  }

  /// Nothing at the end, or once another worker has failed.
  io::Task<std::optional<CopyRange>> next_piece() {
    while (!failed_) {
      if (!pieces_.empty()) {
        const CopyRange piece = pieces_.front();
        pieces_.pop_front();
        co_return piece;
      }
      if (planned_until_ >= progress_.size) co_return std::nullopt;
      if (planning_) {
        co_await planned_.wait();
        continue;
      }
      planning_ = true;
      io::Outcome<> planned = co_await io::attempt([this] { return plan(); });
      planning_ = false;
      planned_.wake();
      planned.take();
    }
    co_return std::nullopt;
  }

  io::Task<void> plan() {
    const uint64_t from = planned_until_;
    const uint64_t length = std::min(kPlanBytes, progress_.size - from);
    uint64_t until = from;
    std::vector<CopyRange> ranges;
    if (options_.plan) {
      ranges = co_await options_.plan(from, length, until);
    } else {
      ranges = co_await plan_by_extents(from, length, until);
    }
    assert(until > from && until <= from + length && "a plan gets on");
    uint64_t wanted = 0;
    for (const CopyRange& range : ranges) {
      wanted += range.length;
      cut(range);
    }
    progress_.skipped += until - from - wanted;
    planned_until_ = until;
    note_done();
  }

  io::Task<std::vector<CopyRange>> plan_by_extents(uint64_t from, uint64_t length,
                                                   uint64_t& until) {
    std::vector<CopyRange> ranges;
    const std::vector<io::Extent> extents =
        co_await options_.sources.front()->extents(from, length, kExtentsAtOnce);
    for (const io::Extent& extent : extents) {
      const bool continues = !ranges.empty() && ranges.back().zero == extent.zero;
      if (continues) {
        ranges.back().length += extent.length;
      } else {
        ranges.push_back({until, extent.length, extent.zero});
      }
      until += extent.length;
    }
    co_return ranges;
  }

  /// Data in pieces of one request, which end where all requests of that size would.
  void cut(CopyRange range) {
    if (range.zero) {
      pieces_.push_back(range);
      return;
    }
    while (range.length > 0) {
      const uint64_t to_border = options_.request_bytes - range.offset % options_.request_bytes;
      const uint64_t length = std::min(range.length, to_border);
      pieces_.push_back({range.offset, length, false});
      range.offset += length;
      range.length -= length;
    }
  }

  void note_done() {
    uint64_t done = planned_until_;
    if (!pieces_.empty()) done = std::min(done, pieces_.front().offset);
    if (!under_way_.empty()) done = std::min(done, *under_way_.begin());
    progress_.done_until = std::max(progress_.done_until, done);
  }

  io::Task<void> report() {
    while (!ended_.is_set()) {
      co_await io::wait_for(runtime_.executor, runtime_.clock, ended_, kProgressInterval);
      if (!options_.on_progress || ended_.is_set() || failed_) continue;
      io::Outcome<> reported =
          co_await io::attempt([this] { return options_.on_progress(progress_); });
      if (reported.failed()) note_failure();
      reported.take();
    }
  }

  io::Runtime runtime_;
  const CopyOptions options_;
  CopyProgress progress_;
  uint64_t planned_until_ = 0;
  bool planning_ = false;
  std::deque<CopyRange> pieces_;  // planned, in order
  std::set<uint64_t> under_way_;  // offsets of pieces
  io::Event planned_;             // woken when pieces have come, or none will
  io::Event ended_;               // set by the last worker
  io::Event failing_;             // set with failed_
  io::SteadyTime next_turn_{};    // when the next request may be read, where there is a rate
  uint32_t workers_ = 0;
  bool failed_ = false;
  bool target_failed_ = false;  // first
};

}  // namespace

io::Task<CopyProgress> copy_disk(io::Runtime runtime, CopyOptions options) {
  Copy copy(runtime, std::move(options));
  co_return co_await copy.run();
}

}  // namespace engine
