// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "io/sync.h"
#include "nbd/buffer_share.h"
#include "nbd/replier.h"

namespace nbd {

/// The BLOCK_STATUS requests of one session: which contexts each is about, and the answer of each
/// (M8-M10, X-3, X-4). Belongs to the thread of the export.
class StatusAnswers {
 public:
  /// `contexts`: those that were selected; outlives this. `pieces`: of the session's replies.
  StatusAnswers(Channel& channel, Replier& replier, BufferShare& pieces,
                const std::vector<SelectedContext>& contexts, StatusBounds bounds)
      : channel_(channel),
        replier_(replier),
        pieces_(pieces),
        contexts_(contexts),
        bounds_(bounds),
        describing_(channel.runtime().executor) {}

  /// Takes the payload of a request other than WRITE off the stream: the contexts that a
  /// BLOCK_STATUS is about, or what no command has (X-5; validate() refuses its flag).
  io::Task<std::optional<Refusal>> receive_filter(Ticket& ticket);

  io::Task<void> answer(Ticket& ticket);

 private:
  size_t bytes_max(size_t context_count) const;
  size_t runs_max(size_t context_count) const;

  Channel& channel_;
  Replier& replier_;
  BufferShare& pieces_;
  const std::vector<SelectedContext>& contexts_;
  const StatusBounds bounds_;
  io::Mutex describing_;  // one at a time: what it has found waits in memory
};

}  // namespace nbd
