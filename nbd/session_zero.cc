// SPDX-License-Identifier: Apache-2.0
#include "nbd/session_zero.h"

#include <algorithm>
#include <cassert>
#include <system_error>

namespace nbd {

/// What a change holds of the room of its connection and of its export.
struct Changes::ChangeRoom {
  io::Grant own, shared;
};

io::Task<Changes::ChangeRoom> Changes::room_for_change(uint64_t bytes) {
  ChangeRoom room;
  room.own = co_await io::Grant::acquire(room_, bytes);
  room.shared = co_await io::Grant::acquire(channel_.exported().change_room(), bytes);
  co_return room;
}

/// The blocks that the range covers in part: the device may have to read and keep them.
uint64_t Changes::partial_block_bytes(uint64_t offset, uint64_t length) const {
  const uint64_t block_bytes = channel_.exported().preferred_block_size();
  const uint64_t end = offset + length;
  const bool head = offset % block_bytes != 0;
  const bool tail = end % block_bytes != 0 && end != channel_.exported().size();
  const bool in_one_block = offset / block_bytes == end / block_bytes;
  if (in_one_block) return head || tail ? block_bytes : 0;
  return (head ? block_bytes : 0) + (tail ? block_bytes : 0);
}

/// A request may be about terabytes, and allocate them: between two steps it notices that the
/// export takes no writes any more, so that sealing never waits for the whole (X-6, D7).
/// A step takes `more_bytes` of memory beside those of the blocks at its ends.
io::Task<void> Changes::change_in_steps(uint64_t offset, uint64_t end, uint64_t more_bytes,
                                        Change change) {
  const uint64_t step_bytes = bytes_at_once_;
  while (offset < end) {
    const uint64_t next = std::min(end, (offset / step_bytes + 1) * step_bytes);
    const uint64_t memory_bytes = more_bytes + partial_block_bytes(offset, next - offset);
    assert(memory_bytes <= Export::kChangeBytesOfOne && "else it would wait for ever");
    ChangeRoom room;
    if (memory_bytes > 0) room = co_await room_for_change(memory_bytes);
    if (auto refusal = channel_.exported().change_refusal()) throw Refused(*std::move(refusal));
    const Export::WriteUnderWay under_way(channel_.exported());
    co_await change(offset, next - offset);
    offset = next;
    if (offset < end) co_await io::NextTurn{channel_.runtime().executor};
  }
}

io::Task<void> Changes::trim(const Request& request) {
  const auto discard = [this](uint64_t offset, uint64_t length) {
    return channel_.device().discard(offset, length);
  };
  co_await change_in_steps(request.offset, request.offset + request.length, 0, discard);
  channel_.counters().bytes_zeroed += request.length;
  if (request.has(kFlagFua)) co_await channel_.device().flush();
}

io::Task<void> Changes::write_zeroes(const Request& request) {
  constexpr uint64_t kLargeBytes = 4 << 20;
  constexpr uint64_t kStoredAtOnce = 1 << 20;  // zeroes that the device may have to write
  Counters& counters = channel_.counters();
  if (request.has(kFlagFastZero) && request.has(kFlagNoHole)) {
    throw std::system_error(ENOTSUP, std::generic_category(),
                            "WRITE_ZEROES cannot be fast and allocate");
  }
  io::ZeroMode mode = io::ZeroMode::may_unmap;
  if (request.has(kFlagNoHole)) mode = io::ZeroMode::no_hole;
  if (request.has(kFlagFastZero)) mode = io::ZeroMode::fast_or_fail;
  const uint64_t end = request.offset + request.length;
  if (mode == io::ZeroMode::fast_or_fail && request.length > 0) {  // all or nothing, and quick
    const Export::WriteUnderWay under_way(channel_.exported());
    co_await channel_.device().write_zeroes(request.offset, request.length, mode);
  } else {
    const auto zero = [this, mode](uint64_t offset, uint64_t length) {
      return channel_.device().write_zeroes(offset, length, mode);
    };
    const bool stores = mode == io::ZeroMode::no_hole;
    const uint64_t stored_bytes = stores ? std::min(request.length, kStoredAtOnce) : 0;
    co_await change_in_steps(request.offset, end, stored_bytes, zero);
  }
  counters.bytes_zeroed += request.length;
  if (request.length >= kLargeBytes) {
    ++counters.zero_requests_4mib;
    counters.zero_bytes_4mib += request.length;
  }
  if (request.has(kFlagFua)) co_await channel_.device().flush();
}

}  // namespace nbd
