// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/tally.h"

#include <array>

#include "engine/values/signals.h"

namespace engine {
namespace {

/// By the command's number; the last one stands for all unknown ones (nbd::Counters).
constexpr std::array<const char*, nbd::Counters::kCommands> kCommandNames = {
    "read", "write", "disc", "flush", "trim", "cache", "write_zeroes", "block_status", "unknown"};
/// What went wrong is for the log.
constexpr std::array<const char*, 2> kResultNames = {"ok", "error"};
constexpr double kMicrosecondsPerSecond = 1e6;

}  // namespace

Tally::Backups Tally::no_backups() {
  Backups counts;
  for (const JobState result : {JobState::completed, JobState::failed, JobState::cancelled}) {
    for (const BackupType type : {BackupType::full, BackupType::incremental}) {
      counts[{std::string(to_text(result)), type}] = 0;
    }
  }
  return counts;
}

Tally::Requests Tally::no_requests() {
  Requests counts;
  for (const char* const command : kCommandNames) {
    for (const char* const result : kResultNames) counts[{command, result}] = 0;
  }
  return counts;
}

std::map<WarningCode, uint64_t> Tally::no_flags() {
  std::map<WarningCode, uint64_t> counts;
  for (const WarningCode flag : kFlags) counts[flag] = 0;
  return counts;
}

Tally::Verified Tally::no_verified() {
  Verified counts;
  for (const auto begun_by : {VerificationOrigin::request, VerificationOrigin::scrub}) {
    for (const auto result : {VerificationResult::sound, VerificationResult::damaged,
                              VerificationResult::without_manifest}) {
      counts[{begun_by, result}] = 0;
    }
  }
  return counts;
}

void Tally::note_export(const nbd::Counters& counters, const DiskCounters& disk) {
  note_traffic(counters);
  bytes_elided += disk.bytes_elided;
  bytes_stored += disk.bytes_stored;
}

void Tally::note_traffic(const nbd::Counters& counters) {
  bytes_received += counters.bytes_received;
  bytes_zeroed += counters.bytes_zeroed;
  bytes_read += counters.bytes_read;
  for (size_t command = 0; command < nbd::Counters::kCommands; ++command) {
    for (size_t result = 0; result < nbd::Counters::kResults; ++result) {
      const uint64_t count = counters.requests[command][result];
      if (count == 0) continue;
      requests[{kCommandNames[command], kResultNames[result == 0 ? 0 : 1]}] += count;
    }
  }
  for (size_t bucket = 0; bucket < counters.request_times.size(); ++bucket) {
    request_seconds.counts[bucket] += counters.request_times[bucket];
  }
  request_seconds.sum_seconds +=
      static_cast<double>(counters.request_time_sum_us) / kMicrosecondsPerSecond;
}

Histogram Tally::histogram(std::vector<double> bounds) {
  Histogram made;
  made.counts.resize(bounds.size() + 1);
  made.bounds_seconds = std::move(bounds);
  return made;
}

/// Divided, not multiplied by 1e-6, which is no binary number: monitors match buckets by their
/// text, and only the quotient is the double that prints as 0.0001.
std::vector<double> Tally::request_bounds() {
  std::vector<double> bounds;
  for (const uint64_t microseconds : nbd::Counters::kRequestMicroseconds) {
    bounds.push_back(static_cast<double>(microseconds) / kMicrosecondsPerSecond);
  }
  return bounds;
}

void Tally::add(Histogram& to, double seconds) {
  size_t bucket = 0;
  while (bucket < to.bounds_seconds.size() && seconds > to.bounds_seconds[bucket]) ++bucket;
  ++to.counts[bucket];
  to.sum_seconds += seconds;
}

}  // namespace engine
