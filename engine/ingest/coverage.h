#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace engine {

/// Which bytes of a disk were written or zeroed at least once, as ranges that grow together.
///
/// Past kRangesMax ranges nothing new is noted, so covered_bytes() is a lower bound then; no client
/// writes a whole disk in that order. One thread. For the warning full_not_covered.
class Coverage {
 public:
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
    if (ends_.size() >= kRangesMax) return;
    ends_.emplace_hint(next, begin, end);
    covered_bytes_ += end - begin;
  }

  uint64_t covered_bytes() const { return covered_bytes_; }

 private:
  std::map<uint64_t, uint64_t> ends_;  // by begin
  uint64_t covered_bytes_ = 0;
};

}  // namespace engine
