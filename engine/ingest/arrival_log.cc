// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/arrival_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "io/big_endian.h"
#include "io/outcome.h"

namespace engine {
namespace {

constexpr std::string_view kMagic = "VARVARRV", kRecordMagic = "ARRV";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kForgotten = uint64_t{1} << 63;
constexpr std::array kCounters = {
    &DiskCounters::bytes_received,        &DiskCounters::bytes_zeroed,
    &DiskCounters::bytes_elided,          &DiskCounters::bytes_stored,
    &DiskCounters::sampled_zero_requests, &DiskCounters::sampled_zero_bytes,
    &DiskCounters::judged_bytes,          &DiskCounters::incompressible_bytes,
    &DiskCounters::zero_data_bytes,
};
constexpr size_t kHeaderBytes = 32, kRangeBytes = 16, kSumBytes = 24;
constexpr size_t kCheckAt = 16 + 8 * kCounters.size(), kRecordHeadBytes = kCheckAt + 8;
/// No writer makes larger records (arrivals.h); a larger count is not one of its.
constexpr uint32_t kEntriesMax = 1 << 21;

using LogBytes = std::vector<std::byte>;

uint64_t body_bytes(uint64_t ranges, uint64_t sums) {
  return ranges * kRangeBytes + sums * kSumBytes;
}

/// Over everything but the check itself.
uint64_t check_of_record(std::span<const std::byte> head, std::span<const std::byte> body) {
  LogBytes both(head.begin(), head.begin() + kCheckAt);
  both.insert(both.end(), body.begin(), body.end());
  return qcow::check_of(both);
}

LogBytes encode(const ArrivalRecord& record) {
  const uint64_t ranges = record.ranges.size() + record.withdrawn.size();
  LogBytes bytes(kRecordHeadBytes + body_bytes(ranges, record.sums.size()));
  const std::span<std::byte> whole(bytes);
  io::BigEndianWriter body(whole.subspan(kRecordHeadBytes));
  for (const Coverage::Range& range : record.ranges) body.put(range.offset).put(range.length);
  for (const Coverage::Range& range : record.withdrawn) body.put(range.offset).put(range.length);
  for (const ArrivalRecord::Entry& entry : record.sums) {
    body.put(entry.cluster.index | (entry.sum ? 0 : kForgotten));
    body.put_bytes(entry.sum.value_or(qcow::Sum{}));
  }
  io::BigEndianWriter head(whole.first(kRecordHeadBytes));
  head.put_text(kRecordMagic);
  head.put(static_cast<uint32_t>(record.ranges.size()));
  head.put(static_cast<uint32_t>(record.withdrawn.size()));
  head.put(static_cast<uint32_t>(record.sums.size()));
  for (const auto counter : kCounters) head.put(record.counters.*counter);
  head.put(check_of_record(whole, whole.subspan(kRecordHeadBytes)));
  return bytes;
}

ArrivalRecord::Entry take_entry(io::BigEndianReader& from) {
  const auto packed = from.take<uint64_t>();
  qcow::Sum sum;
  std::ranges::copy(from.take_bytes(sum.size()), sum.begin());
  ArrivalRecord::Entry entry{{packed & ~kForgotten}, std::nullopt};
  if ((packed & kForgotten) == 0) entry.sum = sum;
  return entry;
}

Coverage::Range take_range(io::BigEndianReader& from) {
  const auto offset = from.take<uint64_t>();
  return {offset, from.take<uint64_t>()};
}

}  // namespace

io::Task<std::unique_ptr<ArrivalLog>> ArrivalLog::create(io::Runtime runtime, std::string path,
                                                         qcow::Uuid image, uint32_t cluster_bits) {
  auto file = co_await runtime.files.open(std::move(path), io::OpenMode::create_new);
  std::unique_ptr<ArrivalLog> log(new ArrivalLog(runtime, std::move(file)));
  LogBytes header(kHeaderBytes);
  io::BigEndianWriter(header).put_text(kMagic).put(kVersion).put(cluster_bits).put_bytes(image);
  co_await log->file_->write(0, header);
  co_await log->file_->sync();
  log->end_ = kHeaderBytes;
  co_return log;
}

io::Task<std::unique_ptr<ArrivalLog>> ArrivalLog::open(io::Runtime runtime, std::string path,
                                                       qcow::Uuid image, uint32_t cluster_bits,
                                                       uint64_t capacity_bytes) {
  auto file = co_await runtime.files.open(std::move(path), io::OpenMode::read_write);
  std::unique_ptr<ArrivalLog> log(new ArrivalLog(runtime, std::move(file)));
  log->capacity_bytes_ = capacity_bytes;
  log->cluster_bytes_ = uint64_t{1} << cluster_bits;
  co_await log->read_all(image, cluster_bits);
  co_return log;
}

io::Task<void> ArrivalLog::read_all(const qcow::Uuid& image, uint32_t cluster_bits) {
  const uint64_t file_bytes = co_await file_->size();
  LogBytes header(kHeaderBytes);
  co_await file_->read(0, header);
  io::BigEndianReader from(header);
  const bool is_ours = from.take_text(kMagic.size()) == kMagic &&
                       from.take<uint32_t>() == kVersion && from.take<uint32_t>() == cluster_bits &&
                       std::ranges::equal(from.take_bytes(image.size()), image);
  if (!is_ours) {
    throw std::runtime_error(
        fmt::format("\"{}\" does not say what has arrived of this image", file_->path()));
  }
  end_ = kHeaderBytes;
  for (uint64_t bytes = 1; bytes > 0; end_ += bytes) {
    bytes = co_await read_record(end_, file_bytes);
  }
  // What a crash has cut off would stand between two records.
  if (end_ < file_bytes) {
    co_await file_->truncate(end_);
    co_await file_->sync();
  }
}

/// The record's length; 0: none is there, or it is not whole.
io::Task<uint64_t> ArrivalLog::read_record(uint64_t at, uint64_t file_bytes) {
  if (file_bytes < at + kRecordHeadBytes) co_return 0;
  LogBytes head(kRecordHeadBytes);
  co_await file_->read(at, head);
  io::BigEndianReader from(head);
  if (from.take_text(kRecordMagic.size()) != kRecordMagic) co_return 0;
  const auto ranges = from.take<uint32_t>();
  const auto withdrawn = from.take<uint32_t>();
  const auto sums = from.take<uint32_t>();
  if (ranges > kEntriesMax || withdrawn > kEntriesMax || sums > kEntriesMax) co_return 0;
  const uint64_t sums_at = kRecordHeadBytes + body_bytes(uint64_t{ranges} + withdrawn, 0);
  const uint64_t bytes = sums_at + body_bytes(0, sums);
  if (file_bytes < at + bytes) co_return 0;
  DiskCounters counters;
  for (const auto counter : kCounters) counters.*counter = from.take<uint64_t>();
  const auto check = from.take<uint64_t>();
  LogBytes body(bytes - kRecordHeadBytes);
  co_await file_->read(at + kRecordHeadBytes, body);
  if (check != check_of_record(head, body)) co_return 0;

  ArrivalRecord record;
  io::BigEndianReader rest(body);
  for (uint32_t i = 0; i < ranges; ++i) record.ranges.push_back(take_range(rest));
  for (uint32_t i = 0; i < withdrawn; ++i) record.withdrawn.push_back(take_range(rest));
  for (uint32_t i = 0; i < sums; ++i) record.sums.push_back(take_entry(rest));
  if (!is_inside(record)) co_return 0;
  counters_ = counters;
  for (const Coverage::Range& range : record.ranges) arrived_.add(range.offset, range.length);
  for (const Coverage::Range& range : record.withdrawn) {
    arrived_.subtract(range.offset, range.length);
  }
  note_place(at + sums_at, record.sums);
  co_return bytes;
}

/// The check of a record says that it is whole, not that it was made for this disk.
bool ArrivalLog::is_inside(const ArrivalRecord& record) const {
  const auto holds_range = [&](const Coverage::Range& range) {
    return range.offset <= capacity_bytes_ && range.length <= capacity_bytes_ - range.offset;
  };
  // A step of the log is withdrawn as a whole (Arrivals), and may be longer than the disk.
  const auto begins_inside = [&](const Coverage::Range& range) {
    return range.offset < capacity_bytes_ && range.length <= UINT64_MAX - range.offset;
  };
  const auto holds_cluster = [&](const ArrivalRecord::Entry& entry) {
    return entry.cluster.index < (capacity_bytes_ + cluster_bytes_ - 1) / cluster_bytes_;
  };
  return std::ranges::all_of(record.ranges, holds_range) &&
         std::ranges::all_of(record.withdrawn, begins_inside) &&
         std::ranges::all_of(record.sums, holds_cluster);
}

void ArrivalLog::note_place(uint64_t offset, const std::vector<ArrivalRecord::Entry>& sums) {
  if (sums.empty()) return;
  const auto [first, last] =
      std::ranges::minmax_element(sums, {}, [](const auto& entry) { return entry.cluster; });
  places_.push_back({offset, sums.size(), first->cluster, last->cluster});
}

io::Task<void> ArrivalLog::append(ArrivalRecord record) {
  if (failed_) throw std::runtime_error(fmt::format("\"{}\" failed before", file_->path()));
  const LogBytes bytes = encode(record);
  io::Outcome<> written = co_await io::attempt([&]() -> io::Task<void> {
    co_await file_->write(end_, bytes);
    co_await file_->sync_data();
  });
  failed_ = written.failed();
  written.take();
  const uint64_t ranges = record.ranges.size() + record.withdrawn.size();
  note_place(end_ + kRecordHeadBytes + body_bytes(ranges, 0), record.sums);
  end_ += bytes.size();
}

io::Task<std::vector<std::optional<qcow::Sum>>> ArrivalLog::sums_of(qcow::GuestCluster first,
                                                                    uint64_t count) {
  std::vector<std::optional<qcow::Sum>> sums(count);
  const std::vector<Place> places = places_;  // more may be appended meanwhile
  for (const Place& place : places) {
    if (place.last < first || place.first >= first + count) continue;
    LogBytes bytes(place.entries * kSumBytes);
    co_await file_->read(place.offset, bytes);
    io::BigEndianReader from(bytes);
    for (uint64_t i = 0; i < place.entries; ++i) {
      const ArrivalRecord::Entry entry = take_entry(from);
      if (entry.cluster >= first && entry.cluster < first + count) {
        sums[entry.cluster - first] = entry.sum;
      }
    }
  }
  co_return sums;
}

}  // namespace engine
