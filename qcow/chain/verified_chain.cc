// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/verified_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "io/log.h"
#include "io/task_scope.h"

namespace qcow {

VerifiedChain::VerifiedChain(io::Runtime runtime, Chain& chain, ChainSums::PathOf path_of,
                             std::string name)
    : chain_(chain),
      sums_(runtime, chain, std::move(path_of)),
      name_(std::move(name)),
      geometry_(chain.layer(0).geometry()),
      parts_(runtime.executor, kPartsInFlightMax) {}

io::Task<void> VerifiedChain::read(uint64_t offset, std::span<std::byte> into) {
  if (into.empty()) co_return;
  const uint64_t end = offset + into.size();
  const GuestCluster first = geometry_.cluster_of(GuestOffset{offset});
  const GuestCluster last = geometry_.cluster_of(GuestOffset{end - 1});
  const Sums sums = co_await sums_of(first, last - first + 1);
  if (std::ranges::none_of(sums, [](const auto& sum) { return sum.has_value(); })) {
    co_await chain_.read(offset, into);
    co_return;
  }
  const GuestCluster whole_first{geometry_.clusters_for(offset)};
  const GuestCluster whole_end = std::max(geometry_.cluster_of(GuestOffset{end}), whole_first);
  const uint64_t whole_from = geometry_.start_of(whole_first).bytes;
  const uint64_t whole_to = geometry_.start_of(whole_end).bytes;
  const auto piece = [&](uint64_t from, uint64_t to) {
    return into.subspan(from - offset, to - from);
  };
  const auto read_all = [&](io::TaskScope& scope) -> io::Task<void> {
    const uint64_t head_end = std::min(whole_from, end);
    if (offset < head_end) scope.spawn(read_part(offset, piece(offset, head_end), sums.front()));
    if (whole_first < whole_end) {
      const auto known = std::span(sums).subspan(whole_first - first, whole_end - whole_first);
      scope.spawn(read_whole(whole_first, piece(whole_from, whole_to), known));
    }
    const uint64_t tail = std::max(whole_to, head_end);
    if (tail < end) scope.spawn(read_part(tail, piece(tail, end), sums.back()));
    co_return;
  };
  co_await io::run_scoped(read_all);
}

/// What a smaller disk above cuts reads as zeroes at its end, and was sent otherwise (BC3).
io::Task<VerifiedChain::Sums> VerifiedChain::sums_of(GuestCluster first, uint64_t count) {
  Sums sums = co_await sums_.sums_of(first, count);
  const uint64_t from = geometry_.start_of(first).bytes;
  const uint64_t end = std::min(geometry_.start_of(first + count).bytes, chain_.size());
  for (size_t layer = 1; layer < chain_.layer_count(); ++layer) {
    const uint64_t limit = chain_.map().limit(layer);
    const bool cuts = geometry_.offset_in_cluster(limit) != 0;
    if (!cuts || limit == chain_.layer(layer).header().virtual_size) continue;
    if (limit > from && limit <= end) sums[geometry_.clusters_for(limit - from) - 1].reset();
  }
  co_return sums;
}

io::Task<void> VerifiedChain::read_whole(GuestCluster first, std::span<std::byte> into,
                                         std::span<const std::optional<Sum>> sums) {
  co_await chain_.read(geometry_.start_of(first).bytes, into);
  for (size_t at = 0; at < sums.size(); ++at) {
    const auto cluster = into.subspan(at << geometry_.cluster_bits, geometry_.cluster_bytes());
    if (sums[at] && sum_of(cluster) != *sums[at]) co_await refuse(first + at);
  }
}

io::Task<void> VerifiedChain::read_part(uint64_t offset, std::span<std::byte> into,
                                        std::optional<Sum> sum) {
  if (!sum) {
    co_await chain_.read(offset, into);
    co_return;
  }
  const GuestCluster cluster = geometry_.cluster_of(GuestOffset{offset});
  std::shared_ptr<const Whole> whole = recent(cluster);
  if (!whole) {
    const io::Grant slot = co_await io::Grant::acquire(parts_, 1);
    const auto read = std::make_shared<Whole>();
    read->cluster = cluster;
    read->bytes.resize(geometry_.cluster_bytes());
    co_await chain_.read(geometry_.start_of(cluster).bytes, read->bytes);
    if (sum_of(read->bytes) != *sum) co_await refuse(cluster);
    keep(read);
    whole = read;
  }
  const uint64_t from = geometry_.offset_in_cluster(offset);
  std::memcpy(into.data(), &whole->bytes[from], into.size());
}

/// Throws. A client that tries again does not fill the log.
io::Task<void> VerifiedChain::refuse(GuestCluster cluster) {
  const uint64_t from = geometry_.start_of(cluster).bytes;
  const uint64_t end = std::min(from + geometry_.cluster_bytes(), chain_.size());
  const std::vector<Run> runs = co_await chain_.runs({from}, {end});
  const std::string text = fmt::format(
      "read {} @{}+{}: image \"{}\" does not hold what was sent; 'varve verify' names all that is "
      "damaged",
      name_, from, end - from, chain_.layer(runs.front().layer).name());
  if (reported_.size() < kReportedMax && reported_.insert(cluster).second) {
    io::log(io::LogLevel::error, "qcow: {}", text);
  }
  throw std::system_error(EIO, std::generic_category(), text);
}

std::shared_ptr<const VerifiedChain::Whole> VerifiedChain::recent(GuestCluster cluster) {
  const auto found =
      std::ranges::find(recent_, cluster, [](const auto& one) { return one->cluster; });
  if (found == recent_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found);
  return recent_.front();
}

void VerifiedChain::keep(std::shared_ptr<const Whole> whole) {
  recent_.push_front(std::move(whole));
  const uint64_t count_max = std::max<uint64_t>(kRecentBytesMax >> geometry_.cluster_bits, 1);
  if (recent_.size() > count_max) recent_.pop_back();
}

io::Task<void> VerifiedChain::write(uint64_t offset, io::Buffer from) {
  return chain_.write(offset, std::move(from));
}

io::Task<void> VerifiedChain::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  return chain_.write_zeroes(offset, length, mode);
}

io::Task<void> VerifiedChain::discard(uint64_t offset, uint64_t length) {
  return chain_.discard(offset, length);
}

}  // namespace qcow
