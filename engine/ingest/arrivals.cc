// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/arrivals.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "io/log.h"
#include "io/outcome.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

constexpr io::Duration kSaveInterval = std::chrono::seconds(5);
/// What is noted beyond is left out: those clusters are sent again.
constexpr size_t kSumsMax = 64 << 10, kRangesBeforeSave = 64 << 10;

}  // namespace

Arrivals::Arrivals(io::Runtime runtime, std::unique_ptr<ArrivalLog> log, Coverage kept)
    : runtime_(runtime),
      log_(std::move(log)),
      kept_(std::move(kept)),
      confirming_(runtime.executor),
      saving_(runtime.executor),
      due_(runtime.executor),
      saved_(runtime.executor) {
  if (log_) new_sums_.reserve(kSumsMax);
}

Arrivals::~Arrivals() { assert(background_.running() == 0 && "stop() it first"); }

void Arrivals::note_sum(qcow::GuestCluster cluster, const qcow::Sum* sum) noexcept {
  if (!log_ || new_sums_.size() == new_sums_.capacity()) return;
  ArrivalRecord::Entry& entry = new_sums_.emplace_back();
  entry.cluster = cluster;
  if (sum) entry.sum = *sum;
  if (new_sums_.size() >= kSumsMax / 2) due_.set();
}

void Arrivals::start(qcow::Image& image, std::function<DiskCounters()> counters) {
  image_ = &image;
  counters_ = std::move(counters);
  geometry_ = image.header().geometry();
  saves_ = log_ != nullptr;
  if (saves_) background_.spawn(save_in_background());
}

io::Task<void> Arrivals::saved() {
  while (is_behind()) {
    due_.set();
    co_await saved_.wait();
  }
}

io::Task<void> Arrivals::before_write(uint64_t offset, uint64_t length) {
  if (length == 0) co_return;
  const uint64_t end = offset + length;
  const qcow::GuestCluster first = cluster_of(offset), last = cluster_of(end - 1);
  const uint64_t from = geometry_.start_of(first).bytes, to = geometry_.start_of(last + 1).bytes;
  if (!kept_.intersects(from, to - from)) co_return;
  const io::Grant turn = co_await confirming_.lock();
  // Of a cluster that stays in part, it must be known now what the rest is.
  if (from < offset || (first == last && end < to)) co_await confirm_clusters(first, 1);
  if (last != first && end < to) co_await confirm_clusters(last, 1);
  // The rest is replaced without a look, and has to come again should this write be refused.
  for (const auto& range : kept_.within(offset, length)) {
    kept_.subtract(range.offset, range.length);
    lost_.add(range.offset, range.length);
  }
}

io::Task<void> Arrivals::begin_again(uint64_t offset, uint64_t length) {
  sent_again_now_.push_back({offset, length});  // from here on no save tells of it
  if (withdrawn_.contains(offset, length)) co_return;
  io::Outcome<> done = co_await io::attempt([&]() -> io::Task<void> {
    const io::Grant turn = co_await saving_.lock();
    const uint64_t from = offset / kSaveBytes * kSaveBytes;
    const uint64_t to = (offset + length + kSaveBytes - 1) / kSaveBytes * kSaveBytes;
    ArrivalRecord record;
    record.counters = counters_();
    record.withdrawn.push_back({from, to - from});
    co_await log_->append(std::move(record));
    withdrawn_.add(from, to - from);
  });
  if (done.failed()) end_again(offset, length);
  done.take();
}

void Arrivals::end_again(uint64_t offset, uint64_t length) noexcept {
  const auto found = std::ranges::find(sent_again_now_, Coverage::Range{offset, length});
  if (found != sent_again_now_.end()) sent_again_now_.erase(found);
}

void Arrivals::note(uint64_t offset, uint64_t length) {
  covered_.add(offset, length);
  if (!kept_.empty()) kept_.subtract(offset, length);
  if (!lost_.empty()) lost_.subtract(offset, length);
  if (!log_) return;
  new_.add(offset, length);
  if (new_.covered_bytes() >= kSaveBytes || new_.range_count() >= kRangesBeforeSave) due_.set();
}

io::Task<uint64_t> Arrivals::confirm(uint64_t offset, uint64_t length) {
  if (!kept_.intersects(offset, length)) co_return length;
  const io::Grant turn = co_await confirming_.lock();
  const auto kept = kept_.within(offset, length, 1);
  if (kept.empty()) co_return length;
  const uint64_t end = offset + length;
  qcow::GuestCluster at = cluster_of(kept.front().offset);
  const qcow::GuestCluster last = cluster_of(end - 1);
  for (uint64_t read_bytes = 0; at <= last && read_bytes < kConfirmBytesAtOnce;) {
    const uint64_t count = std::min(last - at + 1, kConfirmBytesAtOnce >> geometry_.cluster_bits);
    read_bytes += co_await confirm_clusters(at, count) << geometry_.cluster_bits;
    at += count;
  }
  co_return std::min(geometry_.start_of(at).bytes, end) - offset;
}

io::Task<void> Arrivals::confirm_all() {
  while (!kept_.empty()) {
    const Coverage::Range next = kept_.within(0, UINT64_MAX, 1).front();
    co_await confirm(next.offset, next.length);
  }
  if (lost_.empty()) co_return;
  const Coverage::Range first = lost_.ranges().front();
  throw std::runtime_error(fmt::format(
      "{} bytes that had arrived before the transfer was interrupted are not on disk as they were "
      "sent, and did not come again; the first are bytes {} to {}: resume it once more, with a "
      "client that asks for qemu:allocation-depth, or start a new backup",
      lost_.covered_bytes(), first.offset, first.end()));
}

/// Returns how many were read. The caller has the turn.
io::Task<uint64_t> Arrivals::confirm_clusters(qcow::GuestCluster first, uint64_t count) {
  assert(log_ && confirming_.locked());
  count = std::min(count, qcow::GuestCluster{geometry_.guest_clusters()} - first);
  const std::vector<std::optional<qcow::Sum>> sums = co_await log_->sums_of(first, count);
  const std::vector<qcow::Confirmed> found = co_await image_->confirm(first, sums);
  // A cluster that was stored has a checksum; one that the parents have, or zeroes, has none.
  const auto has_arrived = [&](uint64_t i) {
    return found[i] == qcow::Confirmed::same || (found[i] == qcow::Confirmed::no_data && !sums[i]);
  };
  std::vector<qcow::GuestCluster> different;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = geometry_.start_of(first + i).bytes;
    const bool is_kept = kept_.intersects(at, geometry_.cluster_bytes());
    if (is_kept && found[i] == qcow::Confirmed::different) different.push_back(first + i);
  }
  // No save may tell of them while they change.
  io::Grant no_save;
  if (!different.empty()) {
    no_save = co_await saving_.lock();
    co_await renew_clusters(different);
  }
  for (uint64_t i = 0, next = 0; i < count; i = next) {
    const bool arrived = has_arrived(i);
    while (next < count && has_arrived(next) == arrived) ++next;
    const uint64_t bytes = (next - i) << geometry_.cluster_bits;
    for (const auto& range : kept_.within(geometry_.start_of(first + i).bytes, bytes)) {
      kept_.subtract(range.offset, range.length);
      (arrived ? covered_ : lost_).add(range.offset, range.length);
    }
  }
  co_return static_cast<uint64_t>(std::ranges::count_if(
      found, [](qcow::Confirmed one) { return one != qcow::Confirmed::no_data; }));
}

/// Not even their bytes that were never sent are what they should be. The log first: the new
/// content has a checksum that fits it.
io::Task<void> Arrivals::renew_clusters(std::vector<qcow::GuestCluster> clusters) {
  ArrivalRecord record;
  record.counters = counters_();
  for (const qcow::GuestCluster cluster : clusters) {
    record.withdrawn.push_back({geometry_.start_of(cluster).bytes, geometry_.cluster_bytes()});
  }
  co_await log_->append(std::move(record));
  for (const qcow::GuestCluster cluster : clusters) co_await image_->renew(cluster);
}

io::Task<void> Arrivals::save() {
  const io::Grant turn = co_await saving_.lock();
  if (!log_ || (new_.empty() && withdrawn_.empty())) co_return;
  ArrivalRecord record;
  record.counters = counters_();
  saving_bytes_ = new_.covered_bytes();
  record.ranges = take_unsaved().ranges();
  io::Outcome<> done = co_await io::attempt([&] { return append(std::move(record)); });
  saving_bytes_ = 0;
  saved_.wake();
  done.take();
}

/// What the log may say once the image was flushed. Without a suspension point.
Coverage Arrivals::take_unsaved() {
  Coverage unsaved = std::exchange(new_, Coverage());
  for (const auto& range : std::exchange(withdrawn_, Coverage()).ranges()) {
    for (const Coverage* const there : {&covered_, &kept_}) {
      for (const auto& part : there->within(range.offset, range.length)) {
        unsaved.add(part.offset, part.length);
      }
    }
  }
  // What is being sent again may be there in its old form, or in part.
  for (const auto& range : sent_again_now_) {
    unsaved.subtract(range.offset, range.length);
    withdrawn_.add(range.offset, range.length);
  }
  return unsaved;
}

io::Task<void> Arrivals::append(ArrivalRecord record) {
  UNLESS_PLANTED(arrival_before_flush) co_await image_->flush();
  // Those of partial clusters come with the flush. One that is not durable yet harms nothing: its
  // range is in a later record.
  std::vector<ArrivalRecord::Entry> room;
  room.reserve(kSumsMax);
  record.sums = std::exchange(new_sums_, std::move(room));
  co_await log_->append(std::move(record));
}

io::Task<void> Arrivals::save_in_background() {
  try {
    while (saves_) {
      co_await io::wait_for(runtime_.executor, runtime_.clock, due_, kSaveInterval);
      due_.reset();
      if (saves_) co_await save();
    }
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning,
            "what arrives is not noted any more, and would have to be sent again: {}",
            failure.what());
  }
  saves_ = false;
  saved_.wake();
}

io::Task<void> Arrivals::stop() {
  saves_ = false;
  due_.set();
  saved_.wake();
  co_await background_.joined();
}

}  // namespace engine
