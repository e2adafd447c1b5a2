// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/sync.h"
#include "nbd/buffer_share.h"
#include "nbd/replier.h"

namespace nbd {

/// The READs of one session: with structured replies every piece leaves as soon as it is in memory,
/// holes without any data; otherwise the reply starts only when all of it is in memory (P5–P9, C1,
/// C4). Belongs to the thread of the export.
class Reads {
 public:
  /// `pieces`: of the session's replies; outlives the outbox.
  Reads(Channel& channel, Replier& replier, BufferShare& pieces)
      : channel_(channel), replier_(replier), pieces_(pieces) {}

  /// Throws what the device throws, before anything is answered.
  io::Task<void> answer(Ticket& ticket);

 private:
  struct StructuredRead;

  void answer_empty(Ticket ticket);
  io::Task<void> read_structured(Ticket& ticket);
  io::Task<void> read_data_chunk(StructuredRead& read, uint64_t offset, size_t length);
  io::Task<void> read_whole(Ticket& ticket);
  std::vector<io::Buffer> buffers_for(uint64_t offset, uint64_t end);
  io::Task<void> read_into(uint64_t offset, std::span<io::Buffer> buffers);
  io::Task<void> probe_readable(const Request& request, io::Buffer& through);
  io::Task<void> read_again(const Request& request, uint64_t offset, std::span<std::byte> into);
  io::Task<void> read_piece(io::Semaphore& window, uint64_t offset, io::Buffer& into);
  io::Task<bool> all_zero(uint64_t offset, uint64_t length);

  io::BlockDevice& device() const { return channel_.device(); }

  Channel& channel_;
  Replier& replier_;
  BufferShare& pieces_;
};

}  // namespace nbd
