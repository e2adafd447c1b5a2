// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <liburing.h>

#include <cstdint>
#include <functional>
#include <optional>

/// What a test does to file operations between a ring and the kernel: short counts and results
/// that only the kernel makes (EINTR, EAGAIN). For programs that link with ring_faults_link_args
/// and ring_faults.cc; the production code is the one that ships.
namespace support {

struct RingFaults {
  /// A result instead of the operation, which then does not happen.
  std::function<std::optional<int32_t>(const io_uring_sqe&)> result;
  /// Whether a read or write is cut to about half of its length.
  std::function<bool(const io_uring_sqe&)> cut;
};

/// Asked from now on, on this thread; null: nobody. The faults outlive it.
void set_ring_faults(const RingFaults* faults);

/// Reads, writes, syncs and allocations of files. Not the ring's own eventfd, not sockets.
bool is_file_operation(const io_uring_sqe& entry);

}  // namespace support
