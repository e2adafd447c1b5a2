// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "nbd/protocol.h"

namespace nbd {

/// What happened on one export, for status pages, metrics and the engine's watch over stalls.
///
/// Written by the export's thread (connection counts also by handshakes), read by any: every field
/// is atomic and stands for itself. Relaxed order is enough, none is derived from another.
struct Counters {
  using Count = std::atomic<uint64_t>;
  static constexpr size_t kCommands = 9;  ///< by number; the last one stands for all unknown ones
  static constexpr size_t kResults = 9;   ///< ok, then the errors in the order of kResultNames
  static constexpr std::array<const char*, kResults> kResultNames = {
      "ok", "eperm", "eio", "enomem", "einval", "enospc", "eoverflow", "enotsup", "eshutdown"};
  /// Upper bounds of the histogram of request times, in microseconds; one more bucket for the rest.
  static constexpr std::array<uint64_t, 9> kRequestMicroseconds = {
      100, 316, 1'000, 3'162, 10'000, 31'623, 100'000, 1'000'000, 10'000'000};

  Count connections_now = 0;
  Count connections_ever = 0;
  Count abnormal_ends = 0;   ///< connections that ended inside a request, or broke the protocol
  Count bytes_received = 0;  ///< payload, as it arrives
  Count bytes_read = 0;      ///< answered to READ, holes included
  Count bytes_zeroed = 0;    ///< by WRITE_ZEROES and TRIM
  Count in_flight_bytes = 0;
  Count last_traffic_steady_ns = 0;  ///< any NBD byte of a request; io::SteadyTime since its epoch
  Count last_request_wall_ns = 0;    ///< since 1970; 0 before the first request
  Count write_requests = 0;
  Count zero_requests_4mib = 0;  ///< WRITE_ZEROES of 4 MiB and more (warning `sampled_zeroes`)
  Count zero_bytes_4mib = 0;
  std::array<std::array<Count, kResults>, kCommands> requests{};
  std::array<Count, kRequestMicroseconds.size() + 1> request_times{};
  Count request_time_sum_us = 0;

  void count_request(Command command, WireError result, uint64_t microseconds) {
    const size_t number = number_of(command);
    ++requests[number < kCommands - 1 ? number : kCommands - 1][result_index(result)];
    size_t bucket = 0;
    while (bucket < kRequestMicroseconds.size() && microseconds > kRequestMicroseconds[bucket]) {
      ++bucket;
    }
    ++request_times[bucket];
    request_time_sum_us += microseconds;
  }

  static size_t result_index(WireError result) {
    switch (result) {
      case WireError::none:
        return 0;
      case WireError::eperm:
        return 1;
      case WireError::eio:
        return 2;
      case WireError::enomem:
        return 3;
      case WireError::einval:
        return 4;
      case WireError::enospc:
        return 5;
      case WireError::eoverflow:
        return 6;
      case WireError::enotsup:
        return 7;
      case WireError::eshutdown:
        return 8;
    }
    return 2;
  }
};

}  // namespace nbd
