// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "io/task_scope.h"
#include "nbd/channel.h"
#include "nbd/export.h"
#include "nbd/handshake.h"
#include "nbd/progress_watch.h"
#include "nbd/replier.h"
#include "nbd/session_read.h"
#include "nbd/session_status.h"
#include "nbd/session_write.h"
#include "nbd/session_zero.h"

namespace nbd {

struct SessionSettings {
  uint64_t in_flight_bytes_max = 128 << 20;        ///< X4; at least kPayloadBytesMax
  uint32_t requests_max = 256;                     ///< X4; in flight, whatever they carry
  io::Duration stall = std::chrono::seconds(120);  ///< no byte moves: drop (X6)
  io::Duration linger = std::chrono::seconds(1);   ///< for a reply to arrive before a drop
  StatusBounds status_bounds;                      ///< of one answer (M10)
  /// Of a TRIM or WRITE_ZEROES between two looks at whether the export still takes writes; whole
  /// blocks of the device.
  uint64_t change_bytes_at_once = 1 << 30;
};

/// The transmission phase of one connection.
///
/// One coroutine receives requests, one sends replies (Outbox), and every request is answered
/// by a coroutine of its own, so that they overtake one another as they can. How each command is
/// executed is in session_read.h, session_write.h, session_zero.h and session_status.h; Replier
/// answers.
///
/// What a client can make the server hold is bounded (X4, X5): a request by its number and bytes
/// until its reply has been sent, all data and block status by the budget of buffers, the blocks
/// that a TRIM or WRITE_ZEROES changes in part by the export's room for changes.
///
/// Invariant: every request that was received whole is answered exactly once, unless the stream
/// has failed; serve() returns only when no piece of it is left at the device. A connection that
/// has no memory to continue, or a request none for its answer, ends the stream. Spec:
/// docs/nbd-support.md, "Commands" and what follows. Belongs to the thread of the export.
class Session final : public LiveConnection {
 public:
  /// `stream` belongs to the same thread. `read_ahead`: what the handshake received too much.
  Session(std::unique_ptr<io::Stream> stream, Negotiated negotiated,
          std::span<const std::byte> read_ahead, const SessionSettings& settings = {});
  ~Session() override;

  /// Serves until the client or the export ends the connection; never throws.
  io::Task<void> serve();

  void finish() override;
  void abort() override;
  void drop_half_received() override;

 private:
  enum class End : uint8_t { orderly, after_reply };

  io::Task<void> receive_until_end();
  io::Task<End> receive_requests();
  Request take_request();
  void note_request();
  io::Task<void> start(Request request, io::SteadyTime arrived);
  io::Task<InFlight> wait_for_room(Request request);
  io::Task<void> answer(Ticket ticket);
  io::Task<void> execute(Ticket& ticket);

  Negotiated negotiated_;
  const SessionSettings settings_;
  io::Semaphore places_;      // requests in flight (X4)
  io::Semaphore room_;        // bytes in flight (X4)
  BufferShare reply_pieces_;  // replies have a piece whatever receiving waits for
  Channel channel_;           // whose outbox may hold some of the three above
  Replier replier_;
  Reads reads_;
  Writes writes_;
  Changes changes_;
  StatusAnswers status_;
  ProgressWatch watch_;
  io::TaskScope answers_;
  io::TaskScope sender_;
  size_t ahead_max_ = Inbox::kBufferBytes;
};

}  // namespace nbd
