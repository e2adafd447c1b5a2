// SPDX-License-Identifier: Apache-2.0
#include "engine/values/signals.h"

#include <fmt/format.h>

#include <algorithm>

namespace engine {
namespace {

constexpr uint64_t kMib = 1 << 20;

// A disk that is being encrypted: most of what is written cannot be compressed, and where it lies
// the parent held data that could. New archives and films lie where nothing was; an upgrade's
// packages are a part of what it writes, beside what is unpacked of them.
constexpr double kEncryptedShareMin = 0.6;
constexpr double kReplacedShareMin = 0.5;
constexpr uint32_t kReplacedSamplesMin = 16;
constexpr uint64_t kEncryptedBytesMin = 8 * kMib;
constexpr double kEncryptedOfDataMin = 0.01;

// Data that cannot be compressed where the disk has little of it. It may be anything, so much of it
// has to come at once.
constexpr double kJumpShareMin = 0.9;
constexpr double kUsualShareMax = 0.5;
constexpr uint64_t kJumpBytesMin = 64 * kMib;
constexpr uint64_t kJumpTimesUsual = 4;
constexpr double kJumpOfDataMin = 0.1;

std::optional<double> share(uint64_t part, uint64_t whole) {
  if (whole == 0) return std::nullopt;
  return std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
}

template <typename T>
std::optional<T> median(std::vector<T> values) {
  if (values.empty()) return std::nullopt;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// What is usual of a disk.
struct Usual {
  std::optional<double> incompressible_share;  ///< of all points, the fulls too
  std::optional<uint64_t> increment_bytes;     ///< stored by an incremental
  uint64_t data_bytes = 0;                     ///< stored by the newest full and the points on it
};

Usual usual_of(std::span<const Point> history) {
  std::vector<double> shares;
  std::vector<uint64_t> increments;
  Usual usual;
  bool is_newest_chain = true;
  for (const Point& point : history) {
    const auto known = signals_of(point.counters, point.capacity_bytes).incompressible_share;
    if (known) shares.push_back(*known);
    if (is_newest_chain) usual.data_bytes += point.bytes_stored;
    if (point.type == BackupType::full) is_newest_chain = false;
    if (point.type != BackupType::full) increments.push_back(point.bytes_stored);
  }
  usual.incompressible_share = median(std::move(shares));
  usual.increment_bytes = median(std::move(increments));
  return usual;
}

uint64_t part_of(uint64_t bytes, double share) {
  return static_cast<uint64_t>(static_cast<double>(bytes) * share);
}

int percent(double share) { return static_cast<int>(share * 100 + 0.5); }

std::string usual_words(const Usual& usual) {
  if (!usual.incompressible_share) return "";
  return fmt::format("; {} % is usual for this disk", percent(*usual.incompressible_share));
}

std::optional<Warning> encrypted(const JobDisk& disk, const ParentComparison& parent,
                                 const Usual& usual) {
  const auto now = signals_of(disk.counters, disk.capacity_bytes).incompressible_share;
  const auto replaced = share(parent.were_compressible, parent.samples);
  if (!now || *now < kEncryptedShareMin) return std::nullopt;
  if (parent.samples < kReplacedSamplesMin || *replaced < kReplacedShareMin) return std::nullopt;
  const uint64_t bytes = part_of(disk.counters.incompressible_bytes, *replaced);
  if (bytes < std::max(kEncryptedBytesMin, part_of(usual.data_bytes, kEncryptedOfDataMin))) {
    return std::nullopt;
  }
  return Warning{
      WarningCode::encrypted, disk.index,
      fmt::format(
          "disk {}: looks encrypted: {} % of the data in this backup cannot be compressed, "
          "and {} % of that lies where the parent holds data that can, about {} MiB{}; look "
          "at the guest before older backups are deleted",
          disk.index, percent(*now), percent(*replaced), bytes / kMib, usual_words(usual))};
}

std::optional<Warning> entropy_jump(const JobDisk& disk, const Usual& usual) {
  const auto now = signals_of(disk.counters, disk.capacity_bytes).incompressible_share;
  if (!now || *now < kJumpShareMin) return std::nullopt;
  if (!usual.incompressible_share || *usual.incompressible_share >= kUsualShareMax) {
    return std::nullopt;
  }
  uint64_t least = std::max(kJumpBytesMin, part_of(usual.data_bytes, kJumpOfDataMin));
  if (disk.type != BackupType::full) {
    least = std::max(least, kJumpTimesUsual * usual.increment_bytes.value_or(0));
  }
  if (disk.counters.bytes_stored < least) return std::nullopt;
  return Warning{WarningCode::entropy_jump, disk.index,
                 fmt::format("disk {}: {} % of the {} MiB in this backup cannot be compressed{}; "
                             "large archives or encryption have come",
                             disk.index, percent(*now), disk.counters.bytes_stored / kMib,
                             usual_words(usual))};
}

std::optional<Warning> layout(const JobDisk& disk, const ParentComparison& parent) {
  if (parent.layout_changes.empty()) return std::nullopt;
  const std::string changes = fmt::format("{}", fmt::join(parent.layout_changes, ", "));
  if (parent.is_another_disk) {
    return Warning{WarningCode::wrong_disk, disk.index,
                   fmt::format("disk {}: nothing of the parent's layout is left: {}; this may be "
                               "the content of another disk",
                               disk.index, changes)};
  }
  return Warning{
      WarningCode::layout_changed, disk.index,
      fmt::format("disk {}: the layout has changed since the parent: {}", disk.index, changes)};
}

}  // namespace

std::vector<Warning> flags_of(std::span<const Warning> warnings, uint32_t disk_index) {
  std::vector<Warning> flags;
  for (const Warning& warning : warnings) {
    const bool is_flag = std::ranges::find(kFlags, warning.code) != kFlags.end();
    if (is_flag && warning.disk_index == disk_index) flags.push_back(warning);
  }
  return flags;
}

DiskSignals signals_of(const DiskCounters& counters, uint64_t capacity_bytes) {
  DiskSignals signals;
  const uint64_t written = counters.bytes_received + counters.bytes_zeroed;
  // A rebuilt catalogue knows none of these.
  if (written == 0 && counters.bytes_stored == 0) return signals;
  signals.change_share = share(counters.bytes_stored, capacity_bytes);
  signals.elided_share = share(counters.bytes_elided, counters.bytes_received);
  if (counters.judged_bytes == 0 && counters.bytes_received != 0) return signals;
  signals.incompressible_share = share(counters.incompressible_bytes, counters.judged_bytes);
  const double zero_data = share(counters.zero_data_bytes, counters.judged_bytes).value_or(0);
  signals.zero_share =
      share(counters.bytes_zeroed + part_of(counters.bytes_received, zero_data), written);
  return signals;
}

std::vector<Warning> signal_warnings(const JobDisk& disk, const ParentComparison& parent,
                                     std::span<const Point> history) {
  const Usual usual = usual_of(history);
  std::vector<Warning> warnings;
  if (auto flag = encrypted(disk, parent, usual)) {
    warnings.push_back(std::move(*flag));
  } else if (auto jump = entropy_jump(disk, usual)) {
    warnings.push_back(std::move(*jump));
  }
  if (auto flag = layout(disk, parent)) warnings.push_back(std::move(*flag));
  return warnings;
}

}  // namespace engine
