// SPDX-License-Identifier: Apache-2.0
#include "nbd/session_read.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <functional>

#include "io/outcome.h"

namespace nbd {
namespace {

constexpr uint64_t kReadPieceBytes = 1 << 20;
/// Pieces of one READ that are at the device at a time.
constexpr uint64_t kPiecesAtOnce = 8;
constexpr size_t kExtentsAtOnce = 256;

uint64_t piece_end(uint64_t offset, uint64_t end) {
  return std::min(end, (offset + kReadPieceBytes) / kReadPieceBytes * kReadPieceBytes);
}

}  // namespace

/// A READ answered in chunks. DONE goes with the chunk that leaves nothing to answer.
struct Reads::StructuredRead {
  Ticket& ticket;
  uint64_t left;  // bytes that no chunk has answered yet
  WireError result = WireError::none;
  io::Semaphore window;

  /// Queues the chunk that answers `length` bytes; the last one takes the ticket along.
  void push(Reads& reads, Message message, uint64_t length) {
    assert(length > 0 && length <= left && "each byte is answered by one chunk");
    left -= length;
    if (left == 0) {
      reads.replier_.complete(ticket, result, std::move(message));
    } else {
      reads.channel_.outbox().push(std::move(message));
    }
  }
  /// The front of the chunk that answers `answered` bytes.
  Message chunk(const Reads& reads, ChunkType type, uint64_t answered, size_t payload_bytes) const {
    return reads.replier_.chunk(ticket.request, answered == left, type, payload_bytes);
  }
};

io::Task<void> Reads::answer(Ticket& ticket) {
  const Request& request = ticket.request;
  const bool in_chunks = channel_.rules().structured_replies && !request.has(kFlagDf);
  if (request.length == 0) {
    answer_empty(std::move(ticket));
    co_return;
  }
  if (in_chunks) {
    co_await read_structured(ticket);
  } else {
    co_await read_whole(ticket);
  }
  channel_.counters().bytes_read += request.length;
}

void Reads::answer_empty(Ticket ticket) {
  if (!channel_.rules().structured_replies) return replier_.done(std::move(ticket));
  replier_.complete(ticket, WireError::none,
                    replier_.chunk(ticket.request, true, ChunkType::none, 0));
}

io::Task<void> Reads::read_structured(Ticket& ticket) {
  const Request request = ticket.request;
  const uint64_t end = request.offset + request.length;
  StructuredRead read{ticket, request.length, WireError::none,
                      io::Semaphore(channel_.runtime().executor, kPiecesAtOnce)};
  const auto body = [&](io::TaskScope& pieces) -> io::Task<void> {
    for (uint64_t offset = request.offset; offset < end;) {
      const std::vector<io::Extent> extents =
          co_await device().extents(offset, end - offset, kExtentsAtOnce);
      for (size_t index = 0; index < extents.size();) {
        uint64_t length = 0;
        const bool zero = extents[index].zero;
        while (index < extents.size() && extents[index].zero == zero) {
          length += extents[index++].length;
        }
        const uint64_t run_end = offset + length;
        assert(length > 0 && run_end <= end && "extents lie inside what was asked about");
        if (zero) {
          Message message = read.chunk(*this, ChunkType::offset_hole, length, kHoleChunkBytes);
          message.with_part(encode_hole(offset, static_cast<uint32_t>(length)));
          read.push(*this, std::move(message), length);
          offset = run_end;
        }
        while (offset < run_end) {
          const uint64_t next = piece_end(offset, run_end);
          co_await read.window.acquire(1);
          pieces.spawn(read_data_chunk(read, offset, static_cast<size_t>(next - offset)));
          offset = next;
        }
      }
    }
  };
  co_await io::run_scoped(std::cref(body));
  assert(read.left == 0 && "a READ is answered whole");
}

io::Task<void> Reads::read_data_chunk(StructuredRead& read, uint64_t offset, size_t length) {
  const io::Grant place(read.window, 1);
  BufferShare::Piece piece = co_await pieces_.acquire(length, offset);
  const io::Outcome<> fetched =
      co_await io::attempt([&] { return device().read(offset, piece.buffer.bytes()); });
  if (fetched.failed()) {
    // P9: the rest of the range is still delivered.
    const Refusal refusal = refusal_for(fetched.failure());
    read.result = refusal.error;
    Bytes body = encode_error_offset(refusal.error, refusal.text, offset);
    Message message = read.chunk(*this, ChunkType::error_offset, length, body.size());
    message.with_body(std::move(body));
    read.push(*this, std::move(message), length);
    co_return;
  }
  Message message =
      read.chunk(*this, ChunkType::offset_data, length, kDataChunkPrefixBytes + length);
  message.with_part(encode_data_prefix(offset));
  std::vector<io::Buffer> payload;
  payload.push_back(std::move(piece.buffer));
  message.with_data(std::move(payload), std::move(piece.hold));
  read.push(*this, std::move(message), length);
}

io::Task<bool> Reads::all_zero(uint64_t offset, uint64_t length) {
  for (const uint64_t end = offset + length; offset < end;) {
    const std::vector<io::Extent> extents =
        co_await device().extents(offset, end - offset, kExtentsAtOnce);
    assert(!extents.empty());
    for (const io::Extent& extent : extents) {
      if (!extent.zero) co_return false;
      offset += extent.length;
    }
  }
  co_return true;
}

/// One reply for the whole range: with simple replies, and with DF (P6, P8).
///
/// Its data is in memory when the budget has room for it. Waiting for room would not do: clients
/// that do not read their replies may hold it for as long as they like. The range is then read
/// twice through one piece, first to see that it can be, then as it leaves (X5).
io::Task<void> Reads::read_whole(Ticket& ticket) {
  const Request request = ticket.request;
  const bool simple = !channel_.rules().structured_replies;
  const uint64_t end = request.offset + request.length;
  if (!simple && co_await all_zero(request.offset, request.length)) {
    Message message = replier_.chunk(request, true, ChunkType::offset_hole, kHoleChunkBytes);
    message.with_part(encode_hole(request.offset, static_cast<uint32_t>(request.length)));
    replier_.complete(ticket, WireError::none, std::move(message));
    co_return;
  }
  const uint64_t first_bytes =
      std::min(request.length, kReadPieceBytes - request.offset % io::BufferPool::kPage);
  BufferShare::Piece first =
      co_await pieces_.acquire(static_cast<size_t>(first_bytes), request.offset);
  Message message = simple ? Message(SimpleReply{WireError::none, request.cookie}.encode())
                           : replier_.chunk(request, true, ChunkType::offset_data,
                                            kDataChunkPrefixBytes + request.length);
  if (!simple) message.with_part(encode_data_prefix(request.offset));
  const uint64_t first_end = piece_end(request.offset, end);
  std::vector<io::Buffer> rest = buffers_for(first_end, end);
  if (rest.empty() && first_end < end) {
    co_await probe_readable(request, first.buffer);
    message.with_fetched({std::move(first), request.offset, request.length,
                          [this, request](uint64_t offset, std::span<std::byte> into) {
                            return read_again(request, offset, into);
                          }});
  } else {
    first.buffer.shrink(static_cast<size_t>(first_end - request.offset));
    rest.insert(rest.begin(), std::move(first.buffer));
    co_await read_into(request.offset, rest);
    message.with_data(std::move(rest), std::move(first.hold));
  }
  replier_.complete(ticket, WireError::none, std::move(message));
}

/// For the range that begins at a border of pieces; none when the budget has not enough for all.
std::vector<io::Buffer> Reads::buffers_for(uint64_t offset, uint64_t end) {
  std::vector<io::Buffer> buffers;
  while (offset < end) {
    const uint64_t next = piece_end(offset, end);
    const size_t size = static_cast<size_t>(next - offset);
    buffers.push_back(channel_.runtime().buffers.try_acquire(size, offset % io::BufferPool::kPage));
    if (buffers.back().size() != size) return {};
    offset = next;
  }
  return buffers;
}

io::Task<void> Reads::read_into(uint64_t offset, std::span<io::Buffer> buffers) {
  io::Semaphore window(channel_.runtime().executor, kPiecesAtOnce);
  const auto body = [&](io::TaskScope& pieces) -> io::Task<void> {
    for (io::Buffer& piece : buffers) {
      co_await window.acquire(1);
      pieces.spawn(read_piece(window, offset, piece));
      offset += piece.size();
    }
  };
  co_await io::run_scoped(std::cref(body));
}

/// Finds what is wrong before the reply begins (P8).
io::Task<void> Reads::probe_readable(const Request& request, io::Buffer& through) {
  const uint64_t end = request.offset + request.length;
  for (uint64_t offset = request.offset; offset < end;) {
    const auto piece = through.bytes().first(
        static_cast<size_t>(std::min<uint64_t>(through.size(), end - offset)));
    co_await device().read(offset, piece);
    offset += piece.size();
  }
}

io::Task<void> Reads::read_again(const Request& request, uint64_t offset,
                                 std::span<std::byte> into) {
  try {
    co_await device().read(offset, into);
  } catch (const std::exception& failure) {
    channel_.end_abnormally(
        fmt::format("READ of {} bytes at {} failed after its reply had begun: {}", request.length,
                    request.offset, failure.what()));
    throw;
  }
}

io::Task<void> Reads::read_piece(io::Semaphore& window, uint64_t offset, io::Buffer& into) {
  const io::Grant place(window, 1);
  co_await device().read(offset, into.bytes());
}

}  // namespace nbd
