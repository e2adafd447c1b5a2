#include <algorithm>
#include <cassert>

#include "io/planted_bug.h"
#include "nbd/session.h"

/// WRITE: the payload goes from the socket into pooled buffers, in pieces cut at cluster boundaries
/// of the guest offset, and each piece to the device while the next one arrives (C2, C3, C18).
namespace nbd {
namespace {

/// What a piece has at most, unless the device's blocks are larger.
constexpr uint64_t kPieceBytes = 1 << 20;

/// Where the piece that starts at `offset` ends: a block boundary, or the end of the request.
uint64_t piece_end(uint64_t offset, uint64_t request_end, uint64_t block_bytes) {
  const uint64_t piece_max = std::max(kPieceBytes, block_bytes);
  const uint64_t boundary = (offset + piece_max) / block_bytes * block_bytes;
  return std::min(request_end, boundary);
}

}  // namespace

/// A WRITE from its header to its reply. Shared by the receiver and the pieces at the device; the
/// last of them sends the reply.
struct Session::PendingWrite {
  Request request;
  InFlight in_flight;
  io::SteadyTime arrived;
  uint32_t holders = 1;  // the receiver, and each piece at the device
  std::optional<Refusal> refusal;
  std::exception_ptr failure;

  bool given_up() const { return refusal || failure; }
};

/// False when the connection is to be dropped once the reply is out (C3).
io::Task<bool> Session::receive_write(const Request& request, io::SteadyTime arrived) {
  InFlight in_flight = co_await wait_for_room(request);
  const auto write = std::make_shared<PendingWrite>(
      PendingWrite{request, std::move(in_flight), arrived, 1, std::nullopt, nullptr});
  write->refusal = validate(request, export_, rules_);
  const bool too_long = request.payload_bytes > kPayloadBytesMax;
  if (!too_long) co_await receive_pieces(write);
  ++unanswered_;
  assert(write->holders > 0);
  if (--write->holders == 0) answers_.spawn(finish_write(write));
  co_return !too_long;
}

io::Task<void> Session::receive_pieces(std::shared_ptr<PendingWrite> write) {
  const Request& request = write->request;
  if (write->given_up()) {  // its offset may be anything: no sum may be made of it
    co_await inbox_.discard(request.payload_bytes);
    co_return;
  }
  const uint64_t end = request.offset + request.length;
  const uint64_t block_bytes = export_.preferred_block_size();
  uint64_t offset = request.offset;
  ++export_.counters().write_requests;
  receiving_write_.emplace(export_);
  while (offset < end && !write->given_up()) {
    const uint64_t next = piece_end(offset, end, block_bytes);
    assert(offset < next && next <= end);
    BufferShare::Piece piece =
        co_await received_pieces_.acquire(static_cast<size_t>(next - offset), offset);
    // Behind the last piece lies the next request's header, if the client has sent it already.
    co_await inbox_.receive(piece.buffer.bytes(), next == end ? header_bytes_ : 0);
    export_.counters().bytes_received += next - offset;
    note_traffic();
    if (!receiving_write_) {  // seal() would not wait any longer
      write->refusal = export_.change_refusal();
    } else {
      ++write->holders;
      answers_.spawn(write_piece(write, offset, std::move(piece)));
    }
    offset = next;
  }
  receiving_write_.reset();
  if (offset < end) co_await inbox_.discard(end - offset);
}

io::Task<void> Session::write_piece(std::shared_ptr<PendingWrite> write, uint64_t offset,
                                    BufferShare::Piece piece) {
  {
    const Export::WriteUnderWay under_way(export_);
    try {
      PLANTED_BUG(flush_of_own_connection, io::planted_writers.insert(this))
      io::Task<void> writing = device().write(offset, std::move(piece.buffer));
      co_await std::move(writing);
    } catch (...) {
      if (!write->failure) write->failure = std::current_exception();
    }
  }
  piece.hold = {};
  assert(write->holders > 0);
  if (--write->holders > 0) co_return;
  try {
    co_await finish_write(std::move(write));
  } catch (...) {
    lose_client(std::current_exception());
  }
}

io::Task<void> Session::finish_write(std::shared_ptr<PendingWrite> write) {
  assert(write->holders == 0 && "the last who holds a WRITE answers it");
  if (!write->given_up() && write->request.has(kFlagFua)) {
    try {
      co_await device().flush();
    } catch (...) {
      write->failure = std::current_exception();
    }
  }
  Ticket ticket{write->request, std::move(write->in_flight), write->arrived};
  try {
    if (write->failure) {
      reply_failed(std::move(ticket), write->failure);
    } else if (write->refusal) {
      reply_refused(std::move(ticket), *write->refusal);
    } else {
      reply_done(std::move(ticket));
    }
  } catch (...) {
    lose_client(std::current_exception());
  }
  finish_when_answered();
}

}  // namespace nbd
