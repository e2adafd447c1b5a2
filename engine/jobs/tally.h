// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "engine/values/notification.h"
#include "engine/values/views.h"
#include "nbd/counters.h"

namespace engine {

/// What /metrics counts since the start and no row keeps. Control thread.
///
/// Every count begins at 0 instead of appearing with the first event, which a monitor that looks at
/// increases would miss.
struct Tally {
  using Backups = std::map<std::pair<std::string, BackupType>, uint64_t>;
  using Requests = std::map<std::pair<std::string, std::string>, uint64_t>;

  Backups backups = no_backups();  ///< by result
  std::map<std::string, uint64_t> node_calls = {
      {"accepted", 0}, {"refused", 0}, {"unreachable", 0}};           ///< by result
  std::map<FailureCode, uint64_t> failures = none_of<FailureCode>();  ///< of jobs
  std::map<NotificationEvent, uint64_t> events = none_of<NotificationEvent>();
  /// Starts of backups that were refused, by the refusal's code.
  std::map<std::string, uint64_t> start_refusals = {
      {"no_space", 0},       {"no_ports", 0},         {"repository_unavailable", 0},
      {"chain_too_long", 0}, {"node_unreachable", 0}, {"node_refused", 0},
      {"prepare_failed", 0}, {"backup_running", 0}};
  std::map<WarningCode, uint64_t> flags = no_flags();  ///< disks that looked unusual (signals.h)
  using Verified = std::map<std::pair<VerificationOrigin, VerificationResult>, uint64_t>;
  Verified verified_images = no_verified();
  std::map<VerificationOrigin, uint64_t> verified_bytes = {{VerificationOrigin::request, 0},
                                                           {VerificationOrigin::scrub, 0}};
  Histogram seal_seconds = histogram({0.1, 0.3, 1, 3, 10, 30, 100, 300});

  // Of exports that are gone; those of live ones are added on request.
  Requests requests = no_requests();  ///< by command, result
  Histogram request_seconds = histogram(request_bounds());
  uint64_t bytes_received = 0, bytes_zeroed = 0, bytes_elided = 0, bytes_stored = 0, bytes_read = 0;

  void note_seal(double seconds) { add(seal_seconds, seconds); }
  /// Adds what one export has counted.
  void note_traffic(const nbd::Counters& counters);
  /// The same of a disk that a backup fills.
  void note_export(const nbd::Counters& counters, const DiskCounters& disk);

  template <typename Enum>
  static std::map<Enum, uint64_t> none_of() {
    std::map<Enum, uint64_t> counts;
    for (size_t at = 0; at < kWords<Enum>.size(); ++at) counts[static_cast<Enum>(at)] = 0;
    return counts;
  }

  static Backups no_backups();
  static Requests no_requests();
  static std::map<WarningCode, uint64_t> no_flags();
  static Verified no_verified();
  static Histogram histogram(std::vector<double> bounds);
  static std::vector<double> request_bounds();
  static void add(Histogram& to, double seconds);
};

}  // namespace engine
