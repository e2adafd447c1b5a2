// SPDX-License-Identifier: Apache-2.0
#include "app/pull/tracking.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "app/copy_report.h"
#include "io/counted.h"
#include "io/task_scope.h"

namespace app {

using engine::CopyRange;

namespace {

constexpr size_t kReportedMax = 1 << 17;  // 3 MiB
constexpr size_t kComparedAtOnce = 16;

uint64_t grain_down(uint64_t at) { return at / Tracking::kGrainBytes * Tracking::kGrainBytes; }
uint64_t grain_up(uint64_t at) { return grain_down(at + Tracking::kGrainBytes - 1); }

}  // namespace

Tracking::Tracking(TrackingMode mode, double sampled_share, PullSource& source,
                   io::BlockDevice& target)
    : mode_(mode),
      source_(source),
      target_(target),
      random_(std::random_device{}()),
      skip_(std::clamp(sampled_share, 1e-6, 1.0)) {
  if (mode == TrackingMode::sampled) next_sample_ = skip_(random_);
}

io::Task<std::vector<CopyRange>> Tracking::plan(uint64_t offset, uint64_t length, uint64_t& until,
                                                bool everything) {
  std::vector<CopyRange> ranges = co_await source_.plan(offset, length, until, everything);
  if (mode_ == TrackingMode::checked) {
    co_await note_reported(offset, until);
  } else if (mode_ == TrackingMode::sampled && !everything) {
    co_return co_await with_samples(std::move(ranges), offset, until);
  }
  co_return ranges;
}

io::Task<void> Tracking::note_reported(uint64_t offset, uint64_t end) {
  while (offset < end) {
    uint64_t until = offset;
    const std::vector<CopyRange> ranges = co_await source_.plan(offset, end - offset, until, false);
    for (const CopyRange& range : ranges) add_reported(range);
    offset = until;
  }
}

void Tracking::add_reported(const CopyRange& range) {
  const uint64_t from = grain_down(range.offset);
  const uint64_t end = grain_up(range.offset + range.length);
  if (!reported_.empty() && reported_.back().offset + reported_.back().length >= from) {
    CopyRange& last = reported_.back();
    last.length = std::max(last.offset + last.length, end) - last.offset;
    return;
  }
  if (reported_.size() == kReportedMax) {
    throw std::runtime_error(fmt::format(
        "change tracking reports more than {} separate ranges, too many to be checked: pull "
        "without --check-tracking",
        kReportedMax));
  }
  reported_.push_back({from, end - from, false});
}

/// The clusters between the reported ranges that the dice have chosen are compared.
io::Task<std::vector<CopyRange>> Tracking::with_samples(std::vector<CopyRange> reported,
                                                        uint64_t offset, uint64_t end) {
  std::vector<uint64_t> chosen;
  auto range = reported.begin();
  next_sample_ = std::max(next_sample_, grain_up(offset) / kGrainBytes);
  for (; (next_sample_ + 1) * kGrainBytes <= end; next_sample_ += 1 + skip_(random_)) {
    const uint64_t at = next_sample_ * kGrainBytes;
    while (range != reported.end() && range->offset + range->length <= at) ++range;
    const bool clean = range == reported.end() || range->offset >= at + kGrainBytes;
    if (clean) chosen.push_back(at);
  }
  sampled_clusters_ += chosen.size();
  const std::vector<uint64_t> different = co_await differing(chosen);
  if (different.empty()) co_return reported;
  for (const uint64_t at : different) {
    missed_.push_back({at, kGrainBytes, false});
    reported.push_back(missed_.back());
  }
  std::ranges::sort(reported, {}, &CopyRange::offset);
  co_return reported;
}

/// Of these offsets, where the source and the target differ, ascending.
io::Task<std::vector<uint64_t>> Tracking::differing(const std::vector<uint64_t>& clusters) {
  std::vector<uint64_t> different;
  size_t next = 0;
  const auto work = [&]() -> io::Task<void> {
    std::vector<std::byte> here(kGrainBytes), there(kGrainBytes);
    while (next < clusters.size()) {
      const uint64_t at = clusters[next++];
      co_await source_.devices().front()->read(at, here);
      co_await target_.read(at, there);
      if (here != there) different.push_back(at);
    }
  };
  const auto workers = [&](io::TaskScope& scope) -> io::Task<void> {
    for (size_t i = 0; i < std::min(kComparedAtOnce, clusters.size()); ++i) scope.spawn(work());
    co_return;
  };
  co_await io::run_scoped(workers);
  std::ranges::sort(different);
  co_return different;
}

void Tracking::note_changed(const std::vector<CopyRange>& changed) {
  auto reported = reported_.begin();
  for (const CopyRange& range : changed) {
    uint64_t at = range.offset;
    const uint64_t end = range.offset + range.length;
    while (at < end) {
      while (reported != reported_.end() && reported->offset + reported->length <= at) ++reported;
      const uint64_t until =
          reported == reported_.end() ? end : std::clamp(reported->offset, at, end);
      if (until > at) missed_.push_back({at, until - at, false});
      at = until;
      if (at < end) at = std::min(end, reported->offset + reported->length);
    }
  }
}

void report_untracked(bool json, uint32_t disk_index, const Tracking& tracking) {
  constexpr size_t kRangesTold = 1000, kRangesShown = 3;
  const std::vector<CopyRange>& missed = tracking.missed();
  if (json) {
    nlohmann::ordered_json ranges = nlohmann::ordered_json::array();
    for (size_t i = 0; i < std::min(kRangesTold, missed.size()); ++i) {
      ranges.push_back({{"offset", missed[i].offset}, {"length", missed[i].length}});
    }
    print_json_line({{"event", "untracked"},
                     {"disk_id", disk_index},
                     {"sampled_clusters", tracking.sampled_clusters()},
                     {"count", missed.size()},
                     {"bytes", tracking.missed_bytes()},
                     {"ranges", ranges}});
    return;
  }
  if (missed.empty()) return;
  std::string places;
  for (size_t i = 0; i < std::min(kRangesShown, missed.size()); ++i) {
    places += fmt::format("{}@{}+{}", i == 0 ? "" : ", ", missed[i].offset, missed[i].length);
  }
  report_warning(
      json, fmt::format("disk {}: {} ({} bytes) differ from the newest point although change "
                        "tracking does not report them: {}{}. The new point has them right; older "
                        "ones may not. Do not trust the tracking of this disk: pull with "
                        "--into-chain until its cause is found",
                        disk_index, io::counted(missed.size(), "range"), tracking.missed_bytes(),
                        places, missed.size() > kRangesShown ? ", ..." : ""));
}

uint64_t Tracking::missed_bytes() const {
  uint64_t sum = 0;
  for (const CopyRange& range : missed_) sum += range.length;
  return sum;
}

}  // namespace app
