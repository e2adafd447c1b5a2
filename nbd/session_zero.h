// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "io/sync.h"
#include "nbd/channel.h"

namespace nbd {

/// TRIM and WRITE_ZEROES of one session (C7, C9-C11, X-6). Belongs to the thread of the export.
class Changes {
 public:
  /// `bytes_at_once`: of a change between two looks at whether the export still takes writes.
  Changes(Channel& channel, uint64_t bytes_at_once)
      : channel_(channel),
        bytes_at_once_(bytes_at_once),
        room_(channel.runtime().executor, Export::kChangeBytesOfOne) {}

  io::Task<void> write_zeroes(const Request& request);
  io::Task<void> trim(const Request& request);

 private:
  using Change = std::function<io::Task<void>(uint64_t offset, uint64_t length)>;
  struct ChangeRoom;

  io::Task<void> change_in_steps(uint64_t offset, uint64_t end, uint64_t more_bytes, Change change);
  uint64_t partial_block_bytes(uint64_t offset, uint64_t length) const;
  io::Task<ChangeRoom> room_for_change(uint64_t bytes);

  Channel& channel_;
  const uint64_t bytes_at_once_;
  io::Semaphore room_;  // of this connection, in the export's
};

}  // namespace nbd
