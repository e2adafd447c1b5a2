// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>

#include "io/failure.h"
#include "io/planted_bug.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/image.h"

namespace qcow {

namespace {

/// Writes far smaller than a cluster count as this much of the budget, so that their number is
/// bounded too.
constexpr uint64_t kBudgetBytesMin = 32 << 10;

}  // namespace

io::Task<void> Image::write(uint64_t offset, io::Buffer from) {
  require_open("write", offset, from.size());
  if (from.size() == 0) co_return;
  std::exception_ptr failure;
  try {
    co_await accept(offset, std::move(from));
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    refuse_or_fail(failure);
    std::rethrow_exception(failure);
  }
}

io::Task<void> Image::accept(uint64_t offset, io::Buffer from) {
  const uint64_t end = offset + from.size();
  const uint64_t clusters = cluster_of(end - 1) - cluster_of(offset) + 1;
  const Admission::Room room =
      co_await admission_->admit(clusters + clusters / parts_.geometry.l2_entries() + 2);
  const auto payload = std::make_shared<Payload>();
  const uint64_t cost = std::min(std::max<uint64_t>(from.size(), kBudgetBytesMin),
                                 parts_.options.tuning.write_behind_bytes);
  payload->budget = co_await io::Grant::acquire(budget_, cost);
  payload->bytes = std::move(from);

  const std::span<const std::byte> bytes = payload->bytes.bytes();
  const uint64_t cluster_bytes = parts_.geometry.cluster_bytes();
  const uint64_t whole_from = std::min(round_up(offset, cluster_bytes), end);
  const uint64_t whole_to = std::max(round_down(end, cluster_bytes), whole_from);
  if (whole_from > offset) {
    const auto head = bytes.first(whole_from - offset);
    co_await write_partial(payload, offset, head);
  }
  if (whole_to > whole_from) {
    const auto whole = bytes.subspan(whole_from - offset, whole_to - whole_from);
    co_await write_whole(payload, whole_from, whole);
  }
  if (end > whole_to) {
    const auto tail = bytes.subspan(whole_to - offset);
    co_await write_partial(payload, whole_to, tail);
  }
  if (relief_->due()) co_await relief_->relieve();
}

io::Task<void> Image::write_whole(std::shared_ptr<Payload> payload, uint64_t offset,
                                  std::span<const std::byte> bytes) {
  const GuestCluster first = cluster_of(offset);
  const uint64_t count = bytes.size() >> parts_.geometry.cluster_bits;
  assert(count > 0 && parts_.geometry.offset_in_cluster(offset | bytes.size()) == 0);
  const auto held = std::make_shared<HeldWrite>();
  held->payload = std::move(payload);
  held->hold = co_await parts_.ranges.enter(first, count, RangeQueue::Access::exclusive);
  require_open("write", offset, bytes.size());
  std::vector<Sum> sums;
  const std::vector<Fate> fates = co_await fates_of(first, bytes, sums);
  for (uint64_t at = 0; at < count;) {
    uint64_t run_end = at + 1;
    while (run_end < count && fates[run_end] == fates[at]) ++run_end;
    const bool in_steps = run_end < count || count > parts_.geometry.clusters_to_table_end(first);
    if (at == 0 && in_steps) co_await parts_.map->require_sound_range(first, count);
    if (fates[at] == Fate::zero) {
      co_await writer_->zero(first + at, run_end - at);
    } else if (fates[at] == Fate::leave_to_parents) {
      writer_->leave_to_parents(first + at, run_end - at);
    } else {
      co_await writer_->place(held, first + at, run_end - at,
                              bytes.data() + (at << parts_.geometry.cluster_bits),
                              sums.empty() ? nullptr : &sums[at]);
    }
    at = run_end;
  }
}

/// Of whole clusters that the caller holds. `sums` become their checksums where they were needed.
io::Task<std::vector<Image::Fate>> Image::fates_of(GuestCluster first,
                                                   std::span<const std::byte> bytes,
                                                   std::vector<Sum>& sums) {
  const uint64_t cluster_bytes = parts_.geometry.cluster_bytes();
  std::vector<Fate> fates(bytes.size() >> parts_.geometry.cluster_bits, Fate::store);
  for (size_t i = 0; i < fates.size(); ++i) {
    if (is_zero(bytes.subspan(i * cluster_bytes, cluster_bytes))) fates[i] = Fate::zero;
  }
  if (!elision_) co_return fates;
  sums.resize(fates.size());
  for (size_t i = 0; i < fates.size(); ++i) {
    if (fates[i] == Fate::store) sums[i] = sum_of(bytes.subspan(i * cluster_bytes, cluster_bytes));
  }
  const std::vector<bool> equal =
      co_await elision_->find_equal(first, fates.size(), bytes.data(), sums);
  for (size_t i = 0; i < fates.size(); ++i) {
    if (fates[i] == Fate::store && equal[i]) fates[i] = Fate::leave_to_parents;
  }
  co_return fates;
}

/// Bytes of one cluster, not all of it.
io::Task<void> Image::write_partial(std::shared_ptr<Payload> payload, uint64_t offset,
                                    std::span<const std::byte> bytes) {
  const GuestCluster cluster = cluster_of(offset);
  assert(bytes.size() < parts_.geometry.cluster_bytes() &&
         cluster == cluster_of(offset + bytes.size() - 1));
  RangeQueue::Hold hold = co_await parts_.ranges.enter(cluster, 1, RangeQueue::Access::exclusive);
  require_open("write", offset, bytes.size());
  PartialCluster* partial = parts_.partials->find(cluster);
  if (partial == nullptr) {
    const L2Table* const table = co_await parts_.map->load(cluster);
    const Mapping mapping = parts_.map->mapping_of(table, cluster);
    if (parts_.map->owns(mapping, cluster)) {
      const auto held = std::make_shared<HeldWrite>();
      held->payload = std::move(payload);
      held->hold = std::move(hold);
      const HostOffset at{mapping.host.bytes + parts_.geometry.offset_in_cluster(offset)};
      PLANTED_BUG(zero_before_rewrite, const std::vector<std::byte> zeroes(bytes.size());
                  co_await parts_.file->write(at.bytes, zeroes))
      parts_.demand.note(bytes.size());
      UNLESS_PLANTED(manifest_keeps_old_sum)
      if (parts_.sums) parts_.sums->forget(cluster);
      parts_.write_behind->submit(at, bytes, held);
      co_return;
    }
    partial = &parts_.partials->get(cluster);
  }
  partial->put(static_cast<uint32_t>(parts_.geometry.offset_in_cluster(offset)), bytes);
  parts_.demand.note(0);
  if (partial->complete()) co_await finish_complete(cluster, std::move(hold));
}

/// Of a cluster that waited in memory until all of it had been written.
io::Task<void> Image::finish_complete(GuestCluster cluster, RangeQueue::Hold hold) {
  if (elision_) {
    const std::span<const std::byte> bytes = parts_.partials->find(cluster)->bytes.bytes();
    const Sum sum = sum_of(bytes);
    const std::vector<bool> equal =
        co_await elision_->find_equal(cluster, 1, bytes.data(), std::span(&sum, 1));
    if (equal[0]) {
      writer_->leave_to_parents(cluster, 1);
      co_return;
    }
  }
  co_await writer_->finish_partial(cluster, std::move(hold), true);
}

}  // namespace qcow
