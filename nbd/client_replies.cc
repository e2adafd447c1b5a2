// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cassert>
#include <cstring>
#include <system_error>

#include "io/big_endian.h"
#include "io/failure.h"
#include "nbd/client.h"

/// The client's requests on the wire and the replies to them. Nothing that a server says is
/// believed: not a length, not an offset, not a cookie.
namespace nbd {
namespace {

/// From close() to the end by force.
constexpr io::Duration kFarewell = std::chrono::seconds(5);
/// Of a chunk that holds no data: 65,536 runs of 16 bytes, and more than any error text.
constexpr uint64_t kPayloadBytesKept = 2 << 20;

std::system_error failed(const Request& request, WireError error, std::string_view text) {
  return {static_cast<int>(number_of(error)), std::generic_category(),
          fmt::format("{} @{}+{}: {}", command_name(request.command), request.offset,
                      request.length, text)};
}

bool is_error(ChunkType type) { return (number_of(type) & 0x8000) != 0; }

}  // namespace

/// Sends the request and waits for all of its answer; `payload` stays where it is until then.
io::Task<void> Client::perform(Pending& pending, std::span<const std::byte> payload) {
  if (failure_) std::rethrow_exception(failure_);
  Request& request = pending.request;
  request.cookie = next_cookie_++;
  const bool reads = request.command == Command::read;
  Message message =
      rules_.extended_headers ? Message(request.encode_extended()) : Message(request.encode());
  message.with_borrowed(Loan(payload, pending.payload_returned));
  pending_.emplace(request.cookie, &pending);
  asked_.wake();
  reads_pending_ += reads;
  requests_.push(std::move(message));
  co_await pending.done.wait();
  co_await pending.payload_returned.wait();
  reads_pending_ -= reads;
  if (pending_.erase(request.cookie) > 0) std::rethrow_exception(failure_);  // unanswered
  if (pending.error != WireError::none) throw failed(request, pending.error, pending.error_text);
}

io::Task<void> Client::receive_replies() {
  std::exception_ptr failure;
  try {
    bool more = true;
    while (more) {
      // A server speaks when it is asked, and at its end.
      while (pending_.empty() && !closing_) co_await asked_.wait();
      more = co_await receive_reply();
    }
    if (!closing_ || !pending_.empty())
      throw io::failure("receive from", stream_->peer(), ECONNRESET);
  } catch (const std::out_of_range&) {
    failure = std::make_exception_ptr(ProtocolError("a reply is truncated"));
  } catch (...) {
    failure = std::current_exception();
  }
  if (!failure) co_return;
  failure_ = failure;
  // The kernel may still be sending what a waiting request lent.
  stream_->abort();
  requests_.finish();
  co_await sender_.joined();
  for (const auto& [cookie, pending] : pending_) pending->done.set();
}

/// False at the end of the stream.
io::Task<bool> Client::receive_reply() {
  if (rules_.extended_headers) {
    constexpr size_t kBytes = ChunkHeader::kExtendedWireBytes;
    const size_t ahead = reads_pending_ > 0 ? kBytes : Inbox::kBufferBytes;
    if (!co_await inbox_.fill(kBytes, ahead)) co_return false;
    co_await receive_chunk(ChunkHeader::decode_extended(inbox_.take<kBytes>()));
    co_return true;
  }
  // The shorter of the two forms says which one it is.
  constexpr size_t kBytes = SimpleReply::kWireBytes;
  const size_t ahead = reads_pending_ > 0 ? kBytes : Inbox::kBufferBytes;
  if (!co_await inbox_.fill(kBytes, ahead)) co_return false;
  if (io::load_be<uint32_t>(inbox_.ahead().data()) == kSimpleReplyMagic) {
    co_await receive_simple(SimpleReply::decode(inbox_.take<kBytes>()));
    co_return true;
  }
  constexpr size_t kChunkBytes = ChunkHeader::kWireBytes;
  co_await inbox_.fill(kChunkBytes, kChunkBytes);
  co_await receive_chunk(ChunkHeader::decode(inbox_.take<kChunkBytes>()));
  co_return true;
}

Client::Pending& Client::pending_of(uint64_t cookie) const {
  const auto found = pending_.find(cookie);
  if (found == pending_.end()) throw ProtocolError("a reply to a request that was not made");
  return *found->second;
}

io::Task<void> Client::receive_simple(SimpleReply reply) {
  Pending& pending = pending_of(reply.cookie);
  pending.error = reply.error;
  pending.error_text = "refused by the server";
  if (reply.error == WireError::none && pending.request.command == Command::read) {
    if (rules_.structured_replies) throw ProtocolError("a simple reply to READ");
    co_await inbox_.receive(pending.into, SimpleReply::kWireBytes);
    pending.answered = pending.into.size();
  }
  complete(pending);
}

io::Task<void> Client::receive_chunk(ChunkHeader header) {
  Pending& pending = pending_of(header.cookie);
  if (!rules_.structured_replies) throw ProtocolError("a structured reply was not asked for");
  if (rules_.extended_headers && header.offset != pending.request.offset) {
    throw ProtocolError("a reply names another offset than its request");
  }
  if (header.type == ChunkType::offset_data) {
    co_await receive_data(pending, header.length);
  } else {
    const Bytes payload = co_await receive_payload(header);
    take_chunk(pending, header.type, payload);
  }
  if (header.done) complete(pending);
}

io::Task<Bytes> Client::receive_payload(const ChunkHeader& header) {
  if (header.length > kPayloadBytesKept) {
    throw ProtocolError(
        fmt::format("a chunk of type {} has {} bytes", number_of(header.type), header.length));
  }
  Bytes payload(static_cast<size_t>(header.length));
  co_await inbox_.receive(payload, 0);
  co_return payload;
}

io::Task<void> Client::receive_data(Pending& pending, uint64_t length) {
  if (length <= kDataChunkPrefixBytes) throw ProtocolError("a data chunk without data");
  if (!co_await inbox_.fill(kDataChunkPrefixBytes, kDataChunkPrefixBytes)) {
    throw io::failure("receive from", stream_->peer(), ECONNRESET);
  }
  const auto offset = io::load_be<uint64_t>(inbox_.take<kDataChunkPrefixBytes>().data());
  const std::span<std::byte> into = part_of(pending, offset, length - kDataChunkPrefixBytes);
  co_await inbox_.receive(into, 0);
}

/// The part of a READ's memory that a chunk is about.
std::span<std::byte> Client::part_of(Pending& pending, uint64_t offset, uint64_t length) {
  const uint64_t start = pending.request.offset;
  const uint64_t size = pending.into.size();
  if (offset < start || offset - start > size || length > size - (offset - start)) {
    throw ProtocolError("a chunk lies outside of what was asked for");
  }
  pending.answered += length;
  return pending.into.subspan(static_cast<size_t>(offset - start), static_cast<size_t>(length));
}

void Client::take_chunk(Pending& pending, ChunkType type, std::span<const std::byte> payload) {
  const bool is_status = pending.request.command == Command::block_status;
  if (type == ChunkType::none && payload.empty()) return;
  if (type == ChunkType::offset_hole) {
    const HolePayload hole = HolePayload::decode(payload);
    const std::span<std::byte> into = part_of(pending, hole.offset, hole.length);
    std::memset(into.data(), 0, into.size());
  } else if (type == ChunkType::block_status && is_status) {
    pending.status.push_back(StatusPayload::decode(payload));
  } else if (type == ChunkType::block_status_ext && is_status) {
    pending.status.push_back(StatusPayload::decode_ext(payload));
  } else if (is_error(type)) {
    const ErrorPayload error = ErrorPayload::decode(payload);
    pending.error = error.error;
    pending.error_text = error.text;
  } else {
    throw ProtocolError(fmt::format("a chunk of type {} does not belong here", number_of(type)));
  }
}

void Client::complete(Pending& pending) {
  const bool reads = pending.request.command == Command::read;
  if (reads && pending.error == WireError::none && pending.answered != pending.into.size()) {
    throw ProtocolError("a READ is not answered in full");
  }
  pending_.erase(pending.request.cookie);
  pending.done.set();
}

io::Task<void> Client::close() {
  assert(pending_.empty());
  closing_ = true;
  asked_.wake();
  const Request farewell{0, Command::disconnect};
  requests_.push(rules_.extended_headers ? Message(farewell.encode_extended())
                                         : Message(farewell.encode()));
  requests_.finish();
  const auto alarm =
      runtime_.clock.call_at(runtime_.clock.now() + kFarewell, [this] { stream_->abort(); });
  co_await receiver_.joined();
  co_await sender_.joined();
}

}  // namespace nbd
