// SPDX-License-Identifier: Apache-2.0
#include "tests/support/ring_faults.h"

#include <sys/uio.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

namespace support {
namespace {

/// What direct access may need, the larger one first.
constexpr uint64_t kDirectAlignments[] = {4096, 512};
constexpr uint32_t kWakeupBytes = 8;

thread_local const RingFaults* asked = nullptr;
/// Results to put in the place of the kernel's, by user data.
thread_local std::map<uint64_t, int32_t> injected;
/// Pieces of gathered writes that were cut; the kernel reads them at submission.
thread_local std::deque<std::vector<iovec>> cut_pieces;

/// Half of `length`, so that what may go directly to the disk still may.
uint64_t half(uint64_t length, uint64_t other_bits) {
  for (const uint64_t unit : kDirectAlignments) {
    if (((length | other_bits) & (unit - 1)) != 0) continue;
    return std::max(length / 2 / unit, uint64_t{1}) * unit;
  }
  return std::max<uint64_t>(length / 2, 1);
}

void cut(io_uring_sqe& entry) {
  if (entry.opcode == IORING_OP_READ || entry.opcode == IORING_OP_WRITE) {
    entry.len = static_cast<uint32_t>(half(entry.len, entry.off | entry.addr));
    return;
  }
  const auto* const pieces = reinterpret_cast<const iovec*>(entry.addr);
  uint64_t length = 0, bits = entry.off;
  for (uint32_t i = 0; i < entry.len; ++i) {
    length += pieces[i].iov_len;
    bits |= reinterpret_cast<uintptr_t>(pieces[i].iov_base) | pieces[i].iov_len;
  }
  uint64_t left = half(length, bits);
  std::vector<iovec>& kept = cut_pieces.emplace_back();
  for (uint32_t i = 0; left > 0; ++i) {
    kept.push_back({pieces[i].iov_base, std::min<uint64_t>(pieces[i].iov_len, left)});
    left -= kept.back().iov_len;
  }
  entry.addr = reinterpret_cast<uintptr_t>(kept.data());
  entry.len = static_cast<uint32_t>(kept.size());
}

bool may_be_cut(const io_uring_sqe& entry) {
  return entry.opcode == IORING_OP_READ || entry.opcode == IORING_OP_WRITE ||
         entry.opcode == IORING_OP_WRITEV;
}

}  // namespace

void set_ring_faults(const RingFaults* faults) { asked = faults; }

bool is_file_operation(const io_uring_sqe& entry) {
  if (entry.opcode == IORING_OP_READ) return entry.len != kWakeupBytes;
  return entry.opcode == IORING_OP_WRITE || entry.opcode == IORING_OP_WRITEV ||
         entry.opcode == IORING_OP_FSYNC || entry.opcode == IORING_OP_FALLOCATE;
}

/// Looks at the entries that are about to be submitted.
void before_submission(io_uring* ring) {
  if (asked == nullptr) return;
  for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; ++at) {
    io_uring_sqe& entry = ring->sq.sqes[at & *ring->sq.kring_mask];
    if (!is_file_operation(entry)) continue;
    if (const auto result = asked->result ? asked->result(entry) : std::nullopt) {
      injected[entry.user_data] = *result;
      const uint64_t user_data = entry.user_data;
      io_uring_prep_nop(&entry);
      entry.user_data = user_data;
    } else if (may_be_cut(entry) && asked->cut && asked->cut(entry)) {
      cut(entry);
    }
  }
}

void after_submission(io_uring* ring) {
  cut_pieces.clear();
  if (injected.empty()) return;
  const unsigned tail = __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE);
  for (unsigned at = *ring->cq.khead; at != tail; ++at) {
    io_uring_cqe& completion = ring->cq.cqes[at & *ring->cq.kring_mask];
    const auto found = injected.find(completion.user_data);
    if (found == injected.end()) continue;
    completion.res = found->second;
    injected.erase(found);
  }
}

}  // namespace support

extern "C" {
int __real_io_uring_submit(io_uring* ring);
int __real_io_uring_submit_and_get_events(io_uring* ring);
int __real_io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe, unsigned wait_for,
                                            __kernel_timespec* patience, sigset_t* mask);

int __wrap_io_uring_submit(io_uring* ring) {
  support::before_submission(ring);
  const int result = __real_io_uring_submit(ring);
  support::after_submission(ring);
  return result;
}

int __wrap_io_uring_submit_and_get_events(io_uring* ring) {
  support::before_submission(ring);
  const int result = __real_io_uring_submit_and_get_events(ring);
  support::after_submission(ring);
  return result;
}

int __wrap_io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe, unsigned wait_for,
                                            __kernel_timespec* patience, sigset_t* mask) {
  support::before_submission(ring);
  const int result = __real_io_uring_submit_and_wait_timeout(ring, cqe, wait_for, patience, mask);
  support::after_submission(ring);
  return result;
}
}
