// SPDX-License-Identifier: Apache-2.0
#include "engine/scrub.h"

#include <algorithm>

#include "engine/verifications.h"
#include "io/counted.h"
#include "io/log.h"

namespace engine {
namespace {

/// So many are begun together: what has become due meanwhile is seen after them.
constexpr size_t kPointsMax = 100;
/// The catalogue is asked for what is due this many times in an interval, or each minute.
constexpr int kLooksPerInterval = 8;
constexpr io::Duration kLookAtLeastEvery = std::chrono::minutes(1);

class Scrub {
 public:
  explicit Scrub(Core& core) : core_(core) {}

  /// Each watch_interval.
  void step() {
    const bool is_busy = backup_runs();
    if (under_way_ && under_way_->task.state == VerificationState::running) {
      pause(is_busy);
      return;
    }
    if (under_way_) note_end();
    const bool is_off = core_.options.scrub_interval == io::Duration::zero();
    if (is_off || is_busy || core_.steady_now() < next_look_) return;
    if (running_verification(core_.verifications)) return;  // somebody asked for it
    std::vector<Point> due = due_points();
    next_look_ = core_.steady_now() + look_interval();
    if (due.empty()) return;
    under_way_ = begin_scrub(core_, std::move(due));
    io::log(io::LogLevel::info, "scrub {} begins: {} due", under_way_->task.id,
            io::counted(under_way_->task.image_count, "image"));
  }

 private:
  /// The interval may change while varve runs.
  io::Duration look_interval() const {
    return std::min<io::Duration>(core_.options.scrub_interval / kLooksPerInterval,
                                  kLookAtLeastEvery);
  }

  bool backup_runs() const {
    return std::ranges::any_of(core_.jobs.all(),
                               [](const auto& job) { return is_active(job->row.state); });
  }

  void pause(bool is_busy) {
    if (under_way_->progress->paused.exchange(is_busy) == is_busy) return;
    io::log(io::LogLevel::info, "scrub {} {}", under_way_->task.id,
            is_busy ? "waits: a backup runs" : "goes on");
  }

  /// One that was ended for others is taken up with the next look; after a failure, and after more
  /// than are begun together, neither the log nor the catalogue is flooded.
  void note_end() {
    const Verification& task = under_way_->task;
    const bool goes_on =
        task.state == VerificationState::completed && task.image_count == kPointsMax;
    next_look_ = core_.steady_now() + (goes_on ? io::Duration::zero() : look_interval());
    for (const ImageVerification& image : task.images) unread_.erase(image.image_id);
    for (const std::string& id : under_way_->unread) unread_[id] = core_.steady_now();
    under_way_ = nullptr;
  }

  std::vector<Point> due_points() {
    const Time until =
        core_.now() - std::chrono::floor<std::chrono::seconds>(core_.options.scrub_interval);
    std::vector<Point> due = core_.catalogue->points.unproven_since(until);
    std::erase_if(due, [&](const Point& point) {
      return !core_.availability.cause(point.repository_id).empty();
    });
    if (due.empty()) unread_.clear();  // of points that were deleted, too
    due = in_turn(std::move(due), unread_);
    if (due.size() > kPointsMax) due.resize(kPointsMax);
    return due;
  }

  Core& core_;
  io::SteadyTime next_look_{};
  UnreadSince unread_;
  std::shared_ptr<VerificationUnderWay> under_way_;  // the last one of the schedule, until noted
};

}  // namespace

std::vector<Point> in_turn(std::vector<Point> due, const UnreadSince& unread) {
  const auto last_tried = [&](const Point& point) {
    const auto tried = unread.find(point.image_id);
    return tried == unread.end() ? io::SteadyTime::min() : tried->second;
  };
  std::ranges::stable_sort(due, {}, last_tried);
  return due;
}

io::Task<void> scrub_points(Core& core) {
  Scrub scrub(core);
  while (!core.shutting_down) {
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          core.options.watch_interval);
    if (core.shutting_down) break;
    try {
      scrub.step();
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "scrub: {}", failure.what());
    }
  }
}

}  // namespace engine
