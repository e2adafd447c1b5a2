// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace engine {

/// Bytes of a disk, as ranges that grow together: what was written or zeroed at least once.
///
/// Past kRangesMax ranges nothing new is noted, so covered_bytes() is a lower bound then; no client
/// writes a whole disk in that order. One thread. For the warning full_not_covered, for what a full
/// into the chain leaves out, and for what a resumed transfer need not send again.
class Coverage {
 public:
  struct Range {
    uint64_t offset = 0, length = 0;  ///< bytes
    uint64_t end() const { return offset + length; }
    bool operator==(const Range&) const = default;
  };
  static constexpr size_t kRangesMax = 1 << 20;

  void add(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    uint64_t begin = offset, end = offset + length;
    auto next = first_touching(begin);
    // Ranges that touch the new one go up in it.
    while (next != ends_.end() && next->first <= end) {
      begin = std::min(begin, next->first);
      end = std::max(end, next->second);
      covered_bytes_ -= next->second - next->first;
      next = ends_.erase(next);
    }
    if (ends_.size() >= kRangesMax) {
      complete_ = false;
      return;
    }
    ends_.emplace_hint(next, begin, end);
    covered_bytes_ += end - begin;
  }

  void subtract(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    for (const Range& range : within(offset, length)) {
      auto found = std::prev(ends_.upper_bound(range.offset));
      const uint64_t begin_before = found->first, end_before = found->second;
      covered_bytes_ -= end_before - begin_before;
      ends_.erase(found);
      if (begin_before < offset) put(begin_before, offset);
      if (end_before > end) put(end, end_before);
    }
  }

  uint64_t covered_bytes() const { return covered_bytes_; }
  bool empty() const { return ends_.empty(); }
  size_t range_count() const { return ends_.size(); }
  /// Nothing was left out.
  bool complete() const { return complete_; }

  /// What of [offset, offset + length) is covered, ascending; at most `count_max` ranges.
  std::vector<Range> within(uint64_t offset, uint64_t length, size_t count_max = SIZE_MAX) const {
    std::vector<Range> found;
    const uint64_t end = offset + length;
    for (auto next = first_touching(offset);
         next != ends_.end() && next->first < end && found.size() < count_max; ++next) {
      const uint64_t from = std::max(offset, next->first), to = std::min(end, next->second);
      if (to > from) found.push_back({from, to - from});
    }
    return found;
  }
  bool intersects(uint64_t offset, uint64_t length) const {
    const uint64_t end = offset + length;
    for (auto next = first_touching(offset); next != ends_.end() && next->first < end; ++next) {
      if (std::min(end, next->second) > std::max(offset, next->first)) return true;
    }
    return false;
  }
  bool contains(uint64_t offset, uint64_t length) const {
    const auto found = first_touching(offset);
    return found != ends_.end() && found->first <= offset && found->second >= offset + length;
  }
  std::vector<Range> ranges() const { return within(0, UINT64_MAX); }

  /// What of a disk of `size` bytes is not covered, ascending.
  std::vector<Range> gaps(uint64_t size) const {
    std::vector<Range> gaps;
    uint64_t at = 0;
    for (const auto& [begin, end] : ends_) {
      if (begin > at) gaps.push_back({at, begin - at});
      at = end;
    }
    if (at < size) gaps.push_back({at, size - at});
    return gaps;
  }

 private:
  using Ends = std::map<uint64_t, uint64_t>;  // by begin

  /// The first range that ends at `offset` or later.
  Ends::const_iterator first_touching(uint64_t offset) const {
    auto next = ends_.upper_bound(offset);
    if (next != ends_.begin() && std::prev(next)->second >= offset) --next;
    return next;
  }
  void put(uint64_t begin, uint64_t end) {
    ends_.emplace(begin, end);
    covered_bytes_ += end - begin;
  }

  Ends ends_;
  uint64_t covered_bytes_ = 0;
  bool complete_ = true;
};

}  // namespace engine
