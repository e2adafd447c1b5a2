#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/buffer.h"
#include "io/stream.h"
#include "io/task_scope.h"
#include "nbd/buffer_share.h"
#include "nbd/export.h"
#include "nbd/handshake.h"
#include "nbd/inbox.h"
#include "nbd/outbox.h"
#include "nbd/validate.h"

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
/// by a coroutine of its own, so that they overtake one another as they can. A WRITE goes to the
/// device in pieces cut at cluster boundaries, each as soon as it has arrived.
///
/// What a client can make the server hold is bounded (X4, X5): a request by its number and bytes
/// until its reply has been sent, all data and block status by the budget of buffers, the blocks
/// that a TRIM or WRITE_ZEROES changes in part by the export's room for changes.
///
/// Invariant: every request that was received whole is answered exactly once, unless the stream
/// has failed; serve() returns only when no piece of it is left at the device. A connection that
/// has no memory to go on, or a request none for its answer, ends the stream. Spec:
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
  /// A request under way: what its answer needs, wherever that is made.
  struct Ticket {
    Request request;
    InFlight in_flight;
    io::SteadyTime arrived;
    std::vector<SelectedContext> contexts{};  ///< of a BLOCK_STATUS: those it is about
  };
  struct PendingWrite;
  struct StructuredRead;
  enum class End : uint8_t { orderly, after_reply };

  // session.cc: receiving, answering, the end
  io::Task<void> receive_until_end();
  void lose_client(std::exception_ptr cause) noexcept;
  io::Task<End> receive_requests();
  Request take_request();
  void note_request();
  io::Task<void> start(Request request, io::SteadyTime arrived);
  io::Task<InFlight> wait_for_room(const Request& request);
  io::Task<void> answer(Ticket ticket);
  io::Task<void> execute(Ticket& ticket);
  Message chunk(const Request& request, bool done, ChunkType type, uint64_t payload_bytes) const;
  void reply_done(Ticket ticket);
  void reply_refused(Ticket ticket, const Refusal& refusal);
  void reply_failed(Ticket ticket, std::exception_ptr failure);
  void count(const Ticket& ticket, WireError result);
  void note_traffic();
  void finish_when_answered();
  void watch_progress() noexcept;

  // session_zero.cc
  using Change = std::function<io::Task<void>(uint64_t offset, uint64_t length)>;
  struct ChangeRoom;
  io::Task<void> change_in_steps(uint64_t offset, uint64_t end, uint64_t more_bytes, Change change);
  uint64_t partial_block_bytes(uint64_t offset, uint64_t length) const;
  io::Task<ChangeRoom> room_for_change(uint64_t bytes);
  io::Task<void> write_zeroes(const Request& request);
  io::Task<void> trim(const Request& request);

  // session_status.cc
  io::Task<std::optional<Refusal>> receive_filter(Ticket& ticket);
  io::Task<void> answer_block_status(Ticket& ticket);
  size_t status_bytes_max(size_t context_count) const;
  size_t status_runs_max(size_t context_count) const;

  // session_write.cc
  io::Task<bool> receive_write(const Request& request, io::SteadyTime arrived);
  io::Task<void> receive_pieces(std::shared_ptr<PendingWrite> write);
  io::Task<void> write_piece(std::shared_ptr<PendingWrite> write, uint64_t offset,
                             BufferShare::Piece piece);
  io::Task<void> finish_write(std::shared_ptr<PendingWrite> write);

  // session_read.cc
  io::Task<void> answer_read(Ticket& ticket);
  void answer_empty_read(Ticket ticket);
  io::Task<void> read_structured(Ticket& ticket);
  io::Task<void> read_data_chunk(StructuredRead& read, uint64_t offset, size_t length);
  io::Task<void> read_whole(Ticket& ticket);
  std::vector<io::Buffer> buffers_behind(uint64_t offset, uint64_t end);
  io::Task<void> read_into(uint64_t offset, std::span<io::Buffer> buffers);
  io::Task<void> probe_readable(const Request& request, io::Buffer& through);
  io::Task<void> read_again(const Request& request, uint64_t offset, std::span<std::byte> into);
  io::Task<void> read_piece(io::Semaphore& window, uint64_t offset, io::Buffer& into);
  io::Task<bool> all_zero(uint64_t offset, uint64_t length);

  io::BlockDevice& device() const { return export_.device(); }

  Negotiated negotiated_;
  Export& export_;
  const io::Runtime runtime_;
  const SessionSettings settings_;
  const Negotiation rules_;
  std::unique_ptr<io::Stream> stream_;
  Inbox inbox_;
  BufferShare received_pieces_,
      reply_pieces_;           // each direction has a piece whatever the other waits for
  io::Semaphore places_;       // requests in flight (X4)
  io::Semaphore room_;         // bytes in flight (X4)
  io::Semaphore change_room_;  // of this connection, in the export's
  io::Mutex describing_;       // a BLOCK_STATUS at a time: what it has found waits in memory
  Outbox replies_;
  io::TaskScope answers_;
  io::TaskScope sender_;

  const size_t header_bytes_;  // of a request
  size_t ahead_max_ = Inbox::kBufferBytes;
  uint64_t unanswered_ = 0;  // requests that have been received whole
  bool finishing_ = false;
  std::optional<Export::WriteUnderWay> receiving_write_;
  std::string end_reason_;  // set when the server ends the connection
  std::unique_ptr<io::Clock::Alarm> watch_;
  uint64_t watched_received_ = 0, watched_sent_ = 0;
  uint32_t still_ticks_ = 0;
};

}  // namespace nbd
