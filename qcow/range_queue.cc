#include "qcow/range_queue.h"

#include <cassert>

namespace qcow {

RangeQueue::~RangeQueue() { assert(entries_.empty() && "a range queue outlives its operations"); }

RangeQueue::Place RangeQueue::arrive(uint64_t first, uint64_t last, Access access) {
  if (spare_.empty()) spare_.emplace_back();
  const Place place = spare_.begin();
  *place = Entry{first, last, access};
  for (const Entry& earlier : entries_) {
    if (earlier.conflicts_with(*place)) ++place->blockers;
  }
  entries_.splice(entries_.end(), spare_, place);
  return place;
}

void RangeQueue::leave(Place place) noexcept {
  assert(place->blockers == 0);
  for (Place later = std::next(place); later != entries_.end(); ++later) {
    if (later->conflicts_with(*place) && --later->blockers == 0 && later->waiter.handle) {
      executor_.resume_soon(later->waiter);
    }
  }
  spare_.splice(spare_.end(), entries_, place);
}

}  // namespace qcow
