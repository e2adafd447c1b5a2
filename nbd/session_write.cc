// SPDX-License-Identifier: Apache-2.0
#include "nbd/session_write.h"

#include <algorithm>
#include <cassert>

#include "io/planted_bug.h"
#include "nbd/validate.h"

namespace nbd {
namespace {

/// What a piece has at most, unless the device's blocks are larger.
constexpr uint64_t kWritePieceBytes = 1 << 20;

/// Where the piece that starts at `offset` ends: a block boundary, or the end of the request.
uint64_t piece_end(uint64_t offset, uint64_t request_end, uint64_t block_bytes) {
  const uint64_t piece_max = std::max(kWritePieceBytes, block_bytes);
  const uint64_t boundary = (offset + piece_max) / block_bytes * block_bytes;
  return std::min(request_end, boundary);
}

}  // namespace

/// A WRITE from its header to its reply. Shared by the receiver and the pieces at the device; the
/// last of them sends the reply.
struct Writes::PendingWrite {
  Request request;
  InFlight in_flight;
  io::SteadyTime arrived;
  uint32_t holders = 1;  // the receiver, and each piece at the device
  std::optional<Refusal> refusal;
  std::exception_ptr failure;

  bool given_up() const { return refusal || failure; }
};

io::Task<bool> Writes::receive(Request request, InFlight in_flight, io::SteadyTime arrived) {
  const auto write = std::make_shared<PendingWrite>(
      PendingWrite{request, std::move(in_flight), arrived, 1, std::nullopt, nullptr});
  write->refusal = validate(request, channel_.exported(), channel_.rules());
  const bool too_long = request.payload_bytes > kPayloadBytesMax;
  if (!too_long) co_await receive_pieces(write);
  replier_.announce();
  assert(write->holders > 0);
  if (--write->holders == 0) answers_.spawn(finish(write));
  co_return !too_long;
}

io::Task<void> Writes::receive_pieces(std::shared_ptr<PendingWrite> write) {
  const Request& request = write->request;
  if (write->given_up()) {  // its offset may be anything: no sum may be made of it
    co_await channel_.inbox().discard(request.payload_bytes);
    co_return;
  }
  const uint64_t end = request.offset + request.length;
  const uint64_t block_bytes = channel_.exported().preferred_block_size();
  uint64_t offset = request.offset;
  ++channel_.counters().write_requests;
  receiving_.emplace(channel_.exported());
  while (offset < end && !write->given_up()) {
    const uint64_t next = piece_end(offset, end, block_bytes);
    assert(offset < next && next <= end);
    BufferShare::Piece piece = co_await pieces_.acquire(static_cast<size_t>(next - offset), offset);
    // The next request's header follows the last piece, if the client has sent it already.
    co_await channel_.inbox().receive(piece.buffer.bytes(),
                                      next == end ? channel_.header_bytes() : 0);
    channel_.counters().bytes_received += next - offset;
    channel_.note_traffic();
    if (!receiving_) {  // seal() would not wait any longer
      write->refusal = channel_.exported().change_refusal();
    } else {
      ++write->holders;
      answers_.spawn(write_piece(write, offset, std::move(piece)));
    }
    offset = next;
  }
  receiving_.reset();
  if (offset < end) co_await channel_.inbox().discard(end - offset);
}

io::Task<void> Writes::write_piece(std::shared_ptr<PendingWrite> write, uint64_t offset,
                                   BufferShare::Piece piece) {
  {
    const Export::WriteUnderWay under_way(channel_.exported());
    try {
      PLANTED_BUG(flush_of_own_connection, io::planted_writers.insert(&channel_))
      io::Task<void> writing = channel_.device().write(offset, std::move(piece.buffer));
      co_await std::move(writing);
    } catch (...) {
      if (!write->failure) write->failure = std::current_exception();
    }
  }
  piece.hold = {};
  assert(write->holders > 0);
  if (--write->holders > 0) co_return;
  try {
    co_await finish(std::move(write));
  } catch (...) {
    channel_.lose_client(std::current_exception());
  }
}

io::Task<void> Writes::finish(std::shared_ptr<PendingWrite> write) {
  assert(write->holders == 0 && "the last who holds a WRITE answers it");
  if (!write->given_up() && write->request.has(kFlagFua)) {
    try {
      co_await channel_.device().flush();
    } catch (...) {
      write->failure = std::current_exception();
    }
  }
  Ticket ticket{write->request, std::move(write->in_flight), write->arrived};
  try {
    if (write->failure) {
      replier_.failed(std::move(ticket), write->failure);
    } else if (write->refusal) {
      replier_.refused(std::move(ticket), *write->refusal);
    } else {
      replier_.done(std::move(ticket));
    }
  } catch (...) {
    channel_.lose_client(std::current_exception());
  }
  replier_.finish_when_answered();
}

}  // namespace nbd
