// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/write_behind.h"

#include <algorithm>
#include <cassert>

#include "io/stream.h"

namespace qcow {

WriteBehind::WriteBehind(io::Executor& executor, io::File& file, FileSpace& space, Limits limits,
                         std::function<void(std::exception_ptr)> on_failure)
    : file_(file),
      space_(space),
      limits_(std::move(limits)),
      on_failure_(std::move(on_failure)),
      drained_(executor) {
  space_.on_change([this] { pump(); });
}

void WriteBehind::submit(HostOffset at, std::span<const std::byte> bytes,
                         std::shared_ptr<const void> owner) {
  assert(!bytes.empty());
  if (spare_.empty()) spare_.emplace_back();
  spare_.front() = Segment{at, bytes, std::move(owner), epoch_};
  if (failed_) {  // the mapping will never be committed
    spare_.front().owner.reset();
    lost_.splice(lost_.end(), spare_, spare_.begin());
    return;
  }
  pending_.splice(pending_.end(), spare_, spare_.begin());
  ++outstanding_[epoch_];
  space_.use(at.bytes + bytes.size());
  pump();
}

unsigned WriteBehind::begin_epoch() {
  const unsigned ended = epoch_;
  epoch_ = 1 - epoch_;
  assert(outstanding_[epoch_] == 0 && "one commit at a time");
  return ended;
}

io::Task<void> WriteBehind::drain(unsigned epoch) {
  assert(epoch != epoch_ && "what is drained gets no new writes");
  while (!drained(epoch)) co_await drained_.wait();
}

io::Task<void> WriteBehind::drain_all() {
  while (!idle()) co_await drained_.wait();
}

io::Task<void> WriteBehind::stop() {
  while (!idle()) co_await drained_.wait();
  co_await scope_.joined();
}

void WriteBehind::abandon() noexcept {
  failed_ = true;
  drop_pending();
}

void WriteBehind::pump() noexcept {
  if (pumping_) return;  // a write that ended at once, inside spawn()
  pumping_ = true;
  try {
    while (!pending_.empty() && may_start_another()) {
      const Segment& next = pending_.front();
      if (space_.is_coming(next.at.bytes + next.bytes.size())) break;  // on_change() pumps again
      scope_.spawn(write_next());
    }
  } catch (...) {
    give_up(std::current_exception());
  }
  pumping_ = false;
}

bool WriteBehind::may_start_another() const {
  if (in_flight_ == 0) return true;
  const size_t most = limits_.writes_in_flight;
  return in_flight_ < kWhole * (limits_.disk ? limits_.disk->writes_each(most) : most);
}

void WriteBehind::started(size_t load) {
  if (in_flight_ == 0 && limits_.disk) limits_.disk->enter();
  in_flight_ += load;
}

void WriteBehind::ended(size_t load) {
  assert(in_flight_ >= load);
  in_flight_ -= load;
  if (in_flight_ == 0 && limits_.disk) limits_.disk->leave();
}

WriteBehind::Segments WriteBehind::take_next() noexcept {
  assert(!pending_.empty());
  Segments taken;
  size_t total = 0;
  do {
    total += pending_.front().bytes.size();
    taken.splice(taken.end(), pending_, pending_.begin());
  } while (!pending_.empty() && taken.size() < kPiecesMax &&
           pending_.front().at.bytes == taken.back().at.bytes + taken.back().bytes.size() &&
           total + pending_.front().bytes.size() <= limits_.merged_bytes);
  return taken;
}

io::Task<void> WriteBehind::write_next() {
  Segments segments = take_next();
  const HostOffset at = segments.front().at;
  const bool small = segments.size() == 1 && segments.front().bytes.size() <= kSmallBytes;
  const size_t load = small ? 1 : kWhole;
  started(load);
  std::exception_ptr failure;
  try {
    if (segments.size() == 1) {
      co_await file_.write(at.bytes, segments.front().bytes);
    } else {
      std::vector<iovec> pieces;
      pieces.reserve(segments.size());
      for (const Segment& segment : segments) pieces.push_back(io::as_iovec(segment.bytes));
      co_await file_.write_gathered(at.bytes, pieces);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  ended(load);
  if (failure) {
    give_up(failure);
    lose(segments);
  } else {
    done(segments);
  }
  pump();
}

void WriteBehind::give_up(std::exception_ptr failure) noexcept {
  if (std::exchange(failed_, true)) return;
  on_failure_(std::move(failure));
  drop_pending();
}

void WriteBehind::ended(Segments::iterator first, Segments::iterator end) noexcept {
  for (auto segment = first; segment != end; ++segment) {
    segment->owner.reset();
    assert(outstanding_[segment->epoch] > 0);
    if (--outstanding_[segment->epoch] == 0) {
      drained_.set();
      drained_.reset();
    }
  }
}

void WriteBehind::done(Segments& segments) noexcept {
  ended(segments.begin(), segments.end());
  spare_.splice(spare_.end(), segments);
  while (spare_.size() > kSpareMax) spare_.pop_back();
}

/// Their range stays known: what is read from it would be old bytes.
void WriteBehind::lose(Segments& segments) noexcept {
  if (segments.empty()) return;
  const auto first = segments.begin();
  lost_.splice(lost_.end(), segments);
  ended(first, lost_.end());
}

void WriteBehind::drop_pending() noexcept {
  Segments dropped;
  dropped.swap(pending_);
  lose(dropped);
}

bool WriteBehind::lost(HostOffset at, uint64_t length) const {
  return std::any_of(lost_.begin(), lost_.end(), [&](const Segment& segment) {
    return segment.at.bytes < at.bytes + length &&
           at.bytes < segment.at.bytes + segment.bytes.size();
  });
}

}  // namespace qcow
