// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/partial_clusters.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "qcow/format/zero_check.h"

namespace qcow {

void PartialCluster::put(uint32_t at, std::span<const std::byte> from) {
  assert(at + from.size() <= bytes.size());
  std::memcpy(bytes.data() + at, from.data(), from.size());
  mark_valid({at, at + static_cast<uint32_t>(from.size())});
}

void PartialCluster::put_zeroes(uint32_t at, uint32_t count) {
  assert(uint64_t{at} + count <= bytes.size());
  std::memset(bytes.data() + at, 0, count);
  mark_valid({at, at + count});
}

void PartialCluster::mark_valid(ByteRange range) {
  const auto first = std::find_if(valid.begin(), valid.end(),
                                  [&](const ByteRange& r) { return r.to >= range.from; });
  auto last = first;
  for (; last != valid.end() && last->from <= range.to; ++last) {
    range.from = std::min(range.from, last->from);
    range.to = std::max(range.to, last->to);
  }
  if (first == last) {
    valid.insert(first, range);
  } else {
    *first = range;
    valid.erase(first + 1, last);
  }
}

std::vector<ByteRange> PartialCluster::gaps() const {
  std::vector<ByteRange> gaps;
  uint32_t at = 0;
  for (const ByteRange& range : valid) {
    if (range.from > at) gaps.push_back({at, range.from});
    at = range.to;
  }
  if (at < whole().to) gaps.push_back({at, whole().to});
  return gaps;
}

void PartialCluster::clear_gaps() {
  for (const ByteRange& gap : gaps()) std::memset(bytes.data() + gap.from, 0, gap.to - gap.from);
}

void PartialCluster::fill_with_zeroes() {
  clear_gaps();
  mark_complete();
}

void PartialCluster::round_out(uint32_t alignment) {
  for (const ByteRange& gap : gaps()) {
    const uint32_t from =
        std::min<uint32_t>((gap.from + alignment - 1) / alignment * alignment, gap.to);
    const uint32_t to = std::max(from, gap.to / alignment * alignment);
    const bool ends_inside = gap.to < whole().to;
    if (from > gap.from) put_zeroes(gap.from, from - gap.from);
    if (to < gap.to && ends_inside) put_zeroes(to, gap.to - to);
  }
}

bool PartialCluster::valid_is_zero() const {
  return std::all_of(valid.begin(), valid.end(), [&](const ByteRange& range) {
    return is_zero(bytes.bytes().subspan(range.from, range.to - range.from));
  });
}

uint64_t PartialCluster::valid_bytes() const {
  uint64_t total = 0;
  for (const ByteRange& range : valid) total += range.to - range.from;
  return total;
}

PartialCluster* PartialClusters::find(GuestCluster cluster) {
  const auto found = clusters_.find(cluster);
  return found == clusters_.end() ? nullptr : &found->second;
}

PartialCluster& PartialClusters::get(GuestCluster cluster) {
  const auto [at, made] = clusters_.try_emplace(cluster);
  PartialCluster& partial = at->second;
  if (made) {
    try {
      partial.bytes = buffers_.acquire_over_budget(geometry_.cluster_bytes());
    } catch (...) {
      clusters_.erase(at);
      throw;
    }
    partial.age = next_age_++;
    const uint64_t left = geometry_.virtual_size - geometry_.start_of(cluster).bytes;
    if (left < geometry_.cluster_bytes()) {
      const auto end = static_cast<uint32_t>(left);
      partial.put_zeroes(end, static_cast<uint32_t>(geometry_.cluster_bytes()) - end);
    }
  }
  return partial;
}

PartialCluster PartialClusters::take(GuestCluster cluster) {
  auto node = clusters_.extract(cluster);
  assert(!node.empty());
  return std::move(node.mapped());
}

void PartialClusters::erase(GuestCluster first, uint64_t count) {
  if (clusters_.empty()) return;
  clusters_.erase(clusters_.lower_bound(first), clusters_.lower_bound(first + count));
}

void PartialClusters::overlay(uint64_t at, std::span<std::byte> into) const {
  if (clusters_.empty()) return;
  const uint64_t end = at + into.size();
  const GuestCluster first = geometry_.cluster_of(GuestOffset{at});
  for (auto next = clusters_.lower_bound(first); next != clusters_.end(); ++next) {
    const uint64_t start = geometry_.start_of(next->first).bytes;
    if (start >= end) return;
    for (const ByteRange& range : next->second.valid) {
      const uint64_t from = std::max(start + range.from, at);
      const uint64_t to = std::min(start + range.to, end);
      if (from >= to) continue;
      std::memcpy(into.data() + (from - at), next->second.bytes.data() + (from - start), to - from);
    }
  }
}

std::vector<GuestCluster> PartialClusters::all() const {
  std::vector<GuestCluster> all;
  all.reserve(clusters_.size());
  for (const auto& [cluster, partial] : clusters_) all.push_back(cluster);
  return all;
}

std::vector<GuestCluster> PartialClusters::oldest(size_t count) const {
  std::vector<std::pair<uint64_t, GuestCluster>> by_age;
  by_age.reserve(clusters_.size());
  for (const auto& [cluster, partial] : clusters_) by_age.emplace_back(partial.age, cluster);
  count = std::min(count, by_age.size());
  std::nth_element(by_age.begin(), by_age.begin() + static_cast<ptrdiff_t>(count), by_age.end());
  std::vector<GuestCluster> oldest;
  oldest.reserve(count);
  for (size_t i = 0; i < count; ++i) oldest.push_back(by_age[i].second);
  std::sort(oldest.begin(), oldest.end());
  return oldest;
}

}  // namespace qcow
