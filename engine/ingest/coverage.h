#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace engine {

/// Which bytes of a disk were written or zeroed at least once, as ranges that grow together.
///
/// Past kRangesMax ranges nothing new is noted, so covered_bytes() is a lower bound then; no client
/// writes a whole disk in that order. One thread. For the warning full_not_covered, and for what a
/// full into the chain leaves out.
class Coverage {
 public:
  struct Range {
    uint64_t offset = 0, length = 0;  ///< bytes
    bool operator==(const Range&) const = default;
  };
  static constexpr size_t kRangesMax = 1 << 20;

  void add(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    uint64_t begin = offset, end = offset + length;
    auto next = ends_.upper_bound(begin);
    if (next != ends_.begin()) {
      const auto before = std::prev(next);
      if (before->second >= begin) next = before;
    }
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

  uint64_t covered_bytes() const { return covered_bytes_; }
  /// Nothing was left out.
  bool complete() const { return complete_; }

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
  std::map<uint64_t, uint64_t> ends_;  // by begin
  uint64_t covered_bytes_ = 0;
  bool complete_ = true;
};

}  // namespace engine
