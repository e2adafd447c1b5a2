#include "qcow/write_behind.h"

#include <cassert>

#include "io/stream.h"

namespace qcow {

WriteBehind::WriteBehind(io::Executor& executor, io::File& file, FileSpace& space, Limits limits,
                         std::function<void(std::exception_ptr)> on_failure)
    : file_(file),
      space_(space),
      limits_(limits),
      on_failure_(std::move(on_failure)),
      drained_(executor) {
  space_.on_change([this] { pump(); });
}

void WriteBehind::submit(HostOffset at, std::span<const std::byte> bytes,
                         std::shared_ptr<const void> owner) {
  if (failed_) return;  // the mapping will never be committed
  ++outstanding_[epoch_];
  pending_.push_back({at, bytes, std::move(owner), epoch_});
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
  while (outstanding_[epoch] > 0) co_await drained_.wait();
}

io::Task<void> WriteBehind::drain_all() {
  while (!idle()) co_await drained_.wait();
}

io::Task<void> WriteBehind::stop() {
  co_await drain_all();
  co_await scope_.join();
}

void WriteBehind::abandon() {
  failed_ = true;
  drop_pending();
}

void WriteBehind::pump() {
  if (pumping_) return;  // a write that ended at once, inside spawn()
  pumping_ = true;
  while (in_flight_ < limits_.writes_in_flight && !pending_.empty()) {
    const Segment& next = pending_.front();
    if (space_.is_coming(next.at.bytes + next.bytes.size())) break;  // on_change() pumps again
    ++in_flight_;
    ++writes_;
    scope_.spawn(write(take_next()));
  }
  pumping_ = false;
}

std::vector<WriteBehind::Segment> WriteBehind::take_next() {
  std::vector<Segment> taken;
  size_t total = 0;
  do {
    total += pending_.front().bytes.size();
    taken.push_back(std::move(pending_.front()));
    pending_.pop_front();
  } while (!pending_.empty() && taken.size() < kPiecesMax &&
           pending_.front().at.bytes == taken.back().at.bytes + taken.back().bytes.size() &&
           total + pending_.front().bytes.size() <= limits_.merged_bytes);
  return taken;
}

io::Task<void> WriteBehind::write(std::vector<Segment> segments) {
  std::exception_ptr failure;
  try {
    if (segments.size() == 1) {
      co_await file_.write(segments.front().at.bytes, segments.front().bytes);
    } else {
      std::vector<iovec> pieces;
      pieces.reserve(segments.size());
      for (const Segment& segment : segments) pieces.push_back(io::as_iovec(segment.bytes));
      co_await file_.write_gathered(segments.front().at.bytes, pieces);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  --in_flight_;
  if (failure && !failed_) {
    failed_ = true;
    on_failure_(failure);
    drop_pending();
  }
  done(segments);
  pump();
}

void WriteBehind::done(std::vector<Segment>& segments) {
  for (Segment& segment : segments) {
    segment.owner.reset();
    if (--outstanding_[segment.epoch] == 0) {
      drained_.set();
      drained_.reset();
    }
  }
}

void WriteBehind::drop_pending() {
  std::vector<Segment> dropped(std::make_move_iterator(pending_.begin()),
                               std::make_move_iterator(pending_.end()));
  pending_.clear();
  done(dropped);
}

}  // namespace qcow
