// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/sum_log.h"

#include <algorithm>
#include <cassert>
#include <queue>
#include <utility>

#include "io/big_endian.h"
#include "io/outcome.h"

namespace qcow {

SumLog::SumLog(io::Runtime runtime, std::string scratch_path, size_t list_entries)
    : runtime_(runtime),
      scratch_path_(std::move(scratch_path)),
      list_entries_(list_entries),
      made_room_(runtime.executor) {
  list_.reserve(list_entries + list_entries / 2);  // what is written while others wait for room
}

void SumLog::note(GuestCluster cluster, const Sum& sum) noexcept {
  assert(cluster.index < kForgotten);
  put({cluster.index, sum});
  if (listener_) listener_({cluster, sum});
}

void SumLog::forget(GuestCluster cluster) noexcept {
  assert(cluster.index < kForgotten);
  put({cluster.index | kForgotten, {}});
  if (listener_) listener_({cluster, std::nullopt});
}

void SumLog::put(const Packed& entry) noexcept {
  if (list_.size() == list_.capacity()) {
    incomplete_ = true;
  } else {
    list_.push_back(entry);
  }
}

/// One entry for each cluster, the last.
void SumLog::sort(List& list) {
  std::ranges::stable_sort(list, {}, &Packed::cluster);
  // Of equal ones unique() keeps the first, so it goes through from the back.
  const auto kept = std::unique(list.rbegin(), list.rend(), [](const Packed& a, const Packed& b) {
    return a.cluster() == b.cluster();
  });
  list.erase(list.begin(), kept.base());
}

io::Task<void> SumLog::make_room() {
  while (!has_room()) {
    if (making_room_) {
      co_await made_room_.wait();
      continue;
    }
    making_room_ = true;
    io::Outcome<> made = co_await io::attempt([this]() -> io::Task<void> {
      List full;
      full.reserve(list_.capacity());
      full.swap(list_);
      sort(full);
      co_await open_scratch();
      const Run run = co_await write_run(full);
      runs_.push_back(run);
      if (runs_.size() >= kRunsMax) co_await merge_runs();
    });
    making_room_ = false;
    made_room_.wake();
    if (made.failed()) incomplete_ = true;
    made.take();
  }
}

io::Task<void> SumLog::open_scratch() {
  if (scratch_) co_return;
  scratch_ = co_await runtime_.files.open(scratch_path_, io::OpenMode::create_private);
  co_await runtime_.files.remove(scratch_path_);
}

io::Task<SumLog::Run> SumLog::write_run(const List& list) {
  Run run{scratch_bytes_, list.size()};
  std::vector<std::byte> bytes(list.size() * kEntryBytes);
  io::BigEndianWriter out(bytes);
  for (const Packed& entry : list) out.put(entry.index).put_bytes(entry.sum);
  scratch_bytes_ += bytes.size();  // before the write: another one may follow a failed one
  co_await scratch_->write(run.offset, bytes);
  co_return run;
}

/// All runs become one, so that reading them side by side stays cheap.
io::Task<void> SumLog::merge_runs() {
  std::vector<Source> sources = sources_of_runs();
  Run merged{scratch_bytes_, 0};
  // The merged parts are contiguous: making_room_ keeps other writers out.
  for (;;) {
    const List part = co_await take_from(sources, {kForgotten}, list_entries_);
    if (part.empty()) break;
    const Run written = co_await write_run(part);
    merged.entries += written.entries;
  }
  co_await scratch_->punch_hole(0, merged.offset);
  runs_.assign(1, merged);
}

std::vector<SumLog::Source> SumLog::sources_of_runs() const {
  std::vector<Source> sources;
  for (const Run& run : runs_) sources.push_back({.rest = run});
  return sources;
}

io::Task<void> SumLog::refill(Source& source) {
  const size_t count = std::min<uint64_t>(source.rest.entries, kReadEntries);
  std::vector<std::byte> bytes(count * kEntryBytes);
  co_await scratch_->read(source.rest.offset, bytes);
  io::BigEndianReader in(bytes);
  source.ahead.resize(count);
  source.next = 0;
  for (Packed& entry : source.ahead) {
    entry.index = in.take<uint64_t>();
    std::ranges::copy(in.take_bytes(entry.sum.size()), entry.sum.begin());
  }
  source.rest.offset += bytes.size();
  source.rest.entries -= count;
}

/// Ascending; of the entries of one cluster that of the last source. About `count_max` at most.
io::Task<SumLog::List> SumLog::take_from(std::vector<Source>& sources, GuestCluster end,
                                         size_t count_max) {
  using Next = std::pair<GuestCluster, size_t>;  // and its source
  std::priority_queue<Next, std::vector<Next>, std::greater<>> next;
  const auto offer = [&](size_t at) -> io::Task<void> {
    Source& source = sources[at];
    if (source.next == source.ahead.size() && source.rest.entries > 0) co_await refill(source);
    if (source.ended()) co_return;
    const GuestCluster cluster = source.ahead[source.next].cluster();
    if (cluster < end) next.emplace(cluster, at);
  };
  for (size_t at = 0; at < sources.size(); ++at) co_await offer(at);
  List taken;
  while (!next.empty()) {
    const auto [cluster, at] = next.top();
    const bool replaces = !taken.empty() && taken.back().cluster() == cluster;
    if (!replaces && taken.size() >= count_max) break;
    next.pop();
    const Packed& entry = sources[at].ahead[sources[at].next++];
    if (replaces) {
      taken.back() = entry;  // a later source comes later
    } else {
      taken.push_back(entry);
    }
    co_await offer(at);
  }
  co_return taken;
}

io::Task<void> SumLog::finish() {
  while (making_room_) co_await made_room_.wait();
  sort(list_);
  sources_ = sources_of_runs();
  sources_.push_back({.ahead = std::exchange(list_, {})});
}

io::Task<std::vector<SumLog::Entry>> SumLog::take(GuestCluster end) {
  assert(!sources_.empty() && "after finish()");
  const List taken = co_await take_from(sources_, end, SIZE_MAX);
  std::vector<Entry> entries;
  entries.reserve(taken.size());
  for (const Packed& packed : taken) {
    Entry entry{.cluster = packed.cluster()};
    if ((packed.index & kForgotten) == 0) entry.sum = packed.sum;
    entries.push_back(entry);
  }
  co_return entries;
}

}  // namespace qcow
