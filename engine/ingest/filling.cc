// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/filling.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "io/outcome.h"

namespace engine {
namespace {

/// Cuts what the image says into what has arrived, at depth 1, and the rest.
class DepthByArrival {
 public:
  DepthByArrival(const Coverage& covered, size_t count_max)
      : covered_(covered), count_max_(count_max) {}

  /// False once there is no room for more.
  bool add(uint64_t offset, const io::Extent& extent) {
    uint64_t at = offset;
    const uint64_t end = offset + extent.length;
    // What the image stores of a cluster that has arrived in part is as in the parents.
    const uint32_t rest_depth = extent.depth == 1 ? 2 : extent.depth;
    for (const auto& range : covered_.within(offset, extent.length, count_max_ + 1)) {
      if (!put(range.offset - at, extent.zero, rest_depth)) return false;
      if (!put(range.length, extent.zero, 1)) return false;
      at = range.end();
    }
    return put(end - at, extent.zero, rest_depth);
  }
  std::vector<io::Extent> take() { return std::move(extents_); }

 private:
  bool put(uint64_t length, bool zero, uint32_t depth) {
    if (length == 0) return true;
    const io::Extent extent{length, zero, depth};
    if (!extents_.empty() && extents_.back().same_kind(extent)) {
      extents_.back().length += length;
    } else if (extents_.size() == count_max_) {
      return false;
    } else {
      extents_.push_back(extent);
    }
    return true;
  }

  const Coverage& covered_;
  const size_t count_max_;
  std::vector<io::Extent> extents_;
};

}  // namespace

template <class Change>
io::Task<void> Filling::noted(uint64_t offset, uint64_t length, Change change) {
  if (arrivals_.is_behind()) co_await arrivals_.saved();
  const bool is_again = arrivals_.is_again(offset, length);
  if (is_again) co_await arrivals_.begin_again(offset, length);
  io::Outcome<> made = co_await io::attempt([&]() -> io::Task<void> {
    if (arrivals_.has_kept()) co_await arrivals_.before_write(offset, length);
    co_await change();
  });
  if (is_again) arrivals_.end_again(offset, length);
  made.take();
}

io::Task<void> Filling::write(uint64_t offset, io::Buffer from) {
  const uint64_t length = from.size();
  sampler_.add(offset, {from.data(), from.size()});
  if (arrivals_.are_saved()) {
    co_await noted(offset, length, [&] { return image_->write(offset, std::move(from)); });
  } else {
    co_await image_->write(offset, std::move(from));
  }
  note(offset, length);
}

io::Task<void> Filling::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  if (arrivals_.are_saved()) {
    co_await noted(offset, length, [&] { return image_->write_zeroes(offset, length, mode); });
  } else {
    co_await image_->write_zeroes(offset, length, mode);
  }
  note(offset, length);
}

io::Task<void> Filling::discard(uint64_t offset, uint64_t length) {
  if (arrivals_.are_saved()) {
    co_await noted(offset, length, [&] { return image_->discard(offset, length); });
  } else {
    co_await image_->discard(offset, length);
  }
  note(offset, length);
}

io::Task<std::vector<io::Extent>> Filling::extents(uint64_t offset, uint64_t length,
                                                   size_t count_max) {
  if (arrivals_.has_kept()) length = co_await arrivals_.confirm(offset, length);
  const std::vector<io::Extent> stored = co_await image_->extents(offset, length, count_max);
  DepthByArrival cut(arrivals_.covered(), count_max);
  for (const io::Extent& extent : stored) {
    if (!cut.add(offset, extent)) break;
    offset += extent.length;
  }
  co_return cut.take();
}

io::Task<void> Filling::zero_the_rest() {
  const Coverage& covered = arrivals_.covered();
  if (!covered.complete()) {
    throw std::runtime_error(
        fmt::format("the disk was written in more than {} separate pieces; a full backup into "
                    "the chain must tell them apart: send it in larger ones, or without "
                    "into_chain",
                    Coverage::kRangesMax));
  }
  for (const auto& gap : covered.gaps(size())) {
    co_await image_->write_zeroes(gap.offset, gap.length, io::ZeroMode::may_unmap);
    note(gap.offset, gap.length);
  }
}

void Filling::note(uint64_t offset, uint64_t length) {
  arrivals_.note(offset, length);
  count();
}

void Filling::count() {
  counters_.covered_bytes = arrivals_.arrived_bytes();
  const qcow::ImageCounters image = image_->counters();
  counters_.stored_bytes = image.bytes_stored;
  counters_.elided_bytes = image.bytes_elided;
  counters_.used_bytes = image.file_bytes;
  counters_.judged_bytes = sampler_.judged_bytes();
  counters_.incompressible_bytes = sampler_.incompressible_bytes();
  counters_.zero_data_bytes = sampler_.zero_bytes();
}

}  // namespace engine
