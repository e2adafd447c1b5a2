// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/range_queue.h"

#include <algorithm>
#include <cassert>

namespace qcow {

RangeQueue::~RangeQueue() { assert(entries_.empty() && "a range queue outlives its operations"); }

RangeQueue::Place RangeQueue::arrive(GuestCluster first, GuestCluster last, Access access) {
  assert(first <= last);
  if (spare_.empty()) spare_.emplace_back();
  const Place place = spare_.begin();
  *place = Entry{first, last, access};
  entries_.splice(entries_.end(), spare_, place);
  try {
    access == Access::exclusive ? arrive_exclusive(*place) : arrive_shared(*place);
  } catch (...) {
    // Nothing waits for it; those that it was to wait for still point to it.
    place->abandoned = true;
    if (place->blockers == 0) spare_.splice(spare_.end(), entries_, place);
    throw;
  }
  return place;
}

void RangeQueue::arrive_exclusive(Entry& entry) {
  split(entry.first);
  split(entry.last + 1);
  reserve_segments(1);
  const auto begin = segments_.lower_bound(entry.first);
  auto end = begin;
  for (; end != segments_.end() && end->first <= entry.last; ++end) {
    ++steps_;
    const Segment& segment = end->second;
    for (Seat* seat = segment.readers; seat != nullptr; seat = seat->next_in_segment) {
      wait_for(*seat->reader, entry);
    }
    // Readers came after the writer and wait for it themselves.
    if (segment.readers == nullptr) wait_for(*segment.writer, entry);
  }
  assert((begin == end || std::prev(end)->second.last <= entry.last) && "split at both ends");
  // Needs no memory from here on.
  for (auto segment = begin; segment != end;) {
    while (segment->second.readers != nullptr) rise(*segment->second.readers);
    segment = remove_segment(segment);
  }
  add_segment(entry.first, entry.last).writer = &entry;
}

void RangeQueue::arrive_shared(Entry& entry) {
  split(entry.first);
  split(entry.last + 1);
  const auto begin = segments_.lower_bound(entry.first);
  size_t pieces = 0;
  GuestCluster at = entry.first;
  for (auto segment = begin; segment != segments_.end() && segment->first <= entry.last;
       ++segment) {
    ++steps_;
    if (segment->second.writer != nullptr) wait_for(*segment->second.writer, entry);
    pieces += segment->first > at ? 2 : 1;
    at = segment->second.last + 1;
  }
  if (at <= entry.last) ++pieces;
  reserve_segments(pieces);
  seats_.reserve(pieces);
  // Needs no memory from here on.
  at = entry.first;
  for (auto segment = begin; segment != segments_.end() && segment->first <= entry.last;
       ++segment) {
    if (segment->first > at) sit(seats_.take(), entry, add_segment(at, segment->first - 1));
    sit(seats_.take(), entry, segment->second);
    at = segment->second.last + 1;
  }
  if (at <= entry.last) sit(seats_.take(), entry, add_segment(at, entry.last));
}

/// Lets a segment begin at `at`, if one reaches over it.
void RangeQueue::split(GuestCluster at) {
  auto segment = segments_.upper_bound(at);
  ++steps_;
  if (segment == segments_.begin()) return;
  --segment;
  Segment& left = segment->second;
  if (segment->first == at || left.last < at) return;
  size_t readers = 0;
  for (Seat* seat = left.readers; seat != nullptr; seat = seat->next_in_segment) ++readers;
  steps_ += readers;
  seats_.reserve(readers);
  reserve_segments(1);
  Segment& right = add_segment(at, left.last);
  left.last = at - 1;
  right.writer = left.writer;
  for (Seat* seat = left.readers; seat != nullptr; seat = seat->next_in_segment) {
    sit(seats_.take(), *seat->reader, right);
  }
}

void RangeQueue::wait_for(Entry& earlier, Entry& later) {
  assert(&earlier != &later);
  ++steps_;
  if (earlier.last_link != nullptr && earlier.last_link->later == &later) return;
  Link* const link = links_.take();
  *link = {&later, nullptr};
  (earlier.last_link != nullptr ? earlier.last_link->next : earlier.first_link) = link;
  earlier.last_link = link;
  ++later.blockers;
}

void RangeQueue::sit(Seat* seat, Entry& reader, Segment& segment) noexcept {
  *seat = {&reader, std::exchange(reader.seats, seat), segment.readers, &segment.readers};
  if (segment.readers != nullptr) segment.readers->in_segment = &seat->next_in_segment;
  segment.readers = seat;
}

/// Leaves the segment; the seat stays its reader's.
void RangeQueue::rise(Seat& seat) noexcept {
  *seat.in_segment = seat.next_in_segment;
  if (seat.next_in_segment != nullptr) seat.next_in_segment->in_segment = seat.in_segment;
  seat.in_segment = nullptr;
}

void RangeQueue::leave(Place place) noexcept {
  assert(place->blockers == 0 && !place->abandoned);
  while (place->seats != nullptr) {
    Seat* const seat = std::exchange(place->seats, place->seats->next);
    if (seat->in_segment != nullptr) rise(*seat);
    seats_.give(seat);
  }
  free_segments(*place);
  wake_later(*place);
  spare_.splice(spare_.end(), entries_, place);
  links_.trim();
  seats_.trim();
  if (entries_.empty() && std::exchange(empty_is_wanted_, false)) {
    executor_.resume_soon(when_empty_);
  }
}

/// Those in which it was the last.
void RangeQueue::free_segments(const Entry& entry) noexcept {
  auto segment = segments_.lower_bound(entry.first);
  while (segment != segments_.end() && segment->first <= entry.last) {
    ++steps_;
    if (segment->second.writer == &entry) segment->second.writer = nullptr;
    segment = segment->second.idle() ? remove_segment(segment) : std::next(segment);
  }
}

void RangeQueue::wake_later(Entry& entry) noexcept {
  while (entry.first_link != nullptr) {
    ++steps_;
    Link* const link = std::exchange(entry.first_link, entry.first_link->next);
    Entry& later = *link->later;
    links_.give(link);
    assert(later.blockers > 0 && "each link is one blocker");
    if (--later.blockers > 0) continue;
    if (later.abandoned) {
      const auto is_it = [&](const Entry& other) { return &other == &later; };
      const auto found = std::find_if(entries_.begin(), entries_.end(), is_it);
      spare_.splice(spare_.end(), entries_, found);
    } else if (later.waiter.handle) {
      executor_.resume_soon(later.waiter);
    }
  }
  entry.last_link = nullptr;
}

void RangeQueue::reserve_segments(size_t count) {
  spare_segments_.reserve(std::max<size_t>(count, 64));
  while (spare_segments_.size() < count) {
    Segments made;
    made.try_emplace(GuestCluster{});
    spare_segments_.push_back(made.extract(made.begin()));
  }
}

RangeQueue::Segment& RangeQueue::add_segment(GuestCluster first, GuestCluster last) noexcept {
  assert(!spare_segments_.empty() && first <= last);
  Segments::node_type node = std::move(spare_segments_.back());
  spare_segments_.pop_back();
  node.key() = first;
  node.mapped() = {last, nullptr, nullptr};
  const auto added = segments_.insert(std::move(node));
  assert(added.inserted && "segments are disjoint");
  return added.position->second;
}

RangeQueue::Segments::iterator RangeQueue::remove_segment(Segments::iterator segment) noexcept {
  const auto next = std::next(segment);
  if (spare_segments_.size() < spare_segments_.capacity()) {
    spare_segments_.push_back(segments_.extract(segment));
  } else {
    segments_.erase(segment);
  }
  return next;
}

}  // namespace qcow
