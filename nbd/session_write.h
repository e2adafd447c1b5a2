// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "io/task_scope.h"
#include "nbd/buffer_share.h"
#include "nbd/replier.h"

namespace nbd {

/// The WRITEs of one session: the payload goes from the socket into pooled buffers, in pieces split
/// at cluster boundaries of the guest offset, and each piece to the device while the next one
/// arrives (C2, C3, C18). Belongs to the thread of the export.
class Writes {
 public:
  /// `answers` runs the pieces at the device; joined before this goes.
  Writes(Channel& channel, Replier& replier, io::TaskScope& answers)
      : channel_(channel),
        replier_(replier),
        answers_(answers),
        pieces_(channel.runtime().buffers) {}

  /// Receives the payload, and sees to the answer. False when the connection is to be dropped once
  /// the reply is out (C3). One at a time.
  io::Task<bool> receive(Request request, InFlight in_flight, io::SteadyTime arrived);

  /// The rest of the WRITE that is being received, if any, is not written.
  void drop_half_received() { receiving_.reset(); }

 private:
  struct PendingWrite;

  io::Task<void> receive_pieces(std::shared_ptr<PendingWrite> write);
  io::Task<void> write_piece(std::shared_ptr<PendingWrite> write, uint64_t offset,
                             BufferShare::Piece piece);
  io::Task<void> finish(std::shared_ptr<PendingWrite> write);

  Channel& channel_;
  Replier& replier_;
  io::TaskScope& answers_;
  BufferShare pieces_;  // its own: receiving has a piece whatever the replies wait for
  std::optional<Export::WriteUnderWay> receiving_;
};

}  // namespace nbd
