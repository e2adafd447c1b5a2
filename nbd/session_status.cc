// SPDX-License-Identifier: Apache-2.0
#include "nbd/session_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace nbd {
namespace {

/// Of the answer for one context, in the longer of both forms: header, id and count; a run.
constexpr size_t kStatusFrontBytesMax = ChunkHeader::kExtendedWireBytes + 2 * sizeof(uint32_t);
constexpr size_t kStatusRunBytesMax = 2 * sizeof(uint64_t);

/// Throws ProtocolError for an id that no context has.
std::vector<SelectedContext> contexts_with(std::span<const SelectedContext> contexts,
                                           std::span<const uint32_t> ids) {
  std::vector<SelectedContext> found;
  for (const uint32_t id : ids) {
    const auto context = std::ranges::find(contexts, id, &SelectedContext::id);
    if (context == contexts.end()) {
      throw ProtocolError(fmt::format("BLOCK_STATUS names context {}, which was not selected", id));
    }
    found.push_back(*context);
  }
  return found;
}

}  // namespace

io::Task<std::optional<Refusal>> StatusAnswers::receive_filter(Ticket& ticket) {
  Request& request = ticket.request;
  if (request.payload_bytes > kPayloadBytesMax) {
    throw ProtocolError(fmt::format("{} has {} bytes of payload", command_name(request.command),
                                    request.payload_bytes));
  }
  const bool takes_filter =
      request.command == Command::block_status && channel_.rules().status_filter();
  if (!takes_filter) {
    co_await channel_.inbox().discard(request.payload_bytes);
    co_return std::nullopt;
  }
  if (request.payload_bytes > StatusFilter::wire_bytes(contexts_.size())) {
    co_await channel_.inbox().discard(request.payload_bytes);
    co_return Refusal{WireError::einval, "BLOCK_STATUS names more contexts than were selected"};
  }
  Bytes payload(static_cast<size_t>(request.payload_bytes));
  co_await channel_.inbox().receive(payload, channel_.header_bytes());
  try {
    const StatusFilter filter = StatusFilter::decode(payload);
    request.length = filter.length;
    ticket.contexts = contexts_with(contexts_, filter.context_ids);
  } catch (const ProtocolError& malformed) {
    co_return Refusal{WireError::einval, malformed.what()};
  }
  co_return std::nullopt;
}

io::Task<void> StatusAnswers::answer(Ticket& ticket) {
  const Request request = ticket.request;
  const bool one = request.has(kFlagReqOne);
  const auto encode =
      channel_.rules().extended_headers ? encode_block_status_ext : encode_block_status;
  const ChunkType type =
      channel_.rules().extended_headers ? ChunkType::block_status_ext : ChunkType::block_status;
  std::vector<const MetaContext*> contexts;
  for (const SelectedContext& selected : ticket.contexts) {
    contexts.push_back(channel_.exported().contexts()[selected.index].get());
  }
  const io::Grant turn = co_await describing_.lock();
  BufferShare::Piece piece = co_await pieces_.acquire(bytes_max(contexts.size()), 0);
  StatusBounds bounds = bounds_;
  bounds.runs_max = std::min(bounds.runs_max, runs_max(contexts.size()));
  auto asking = block_status(channel_.device(), std::move(contexts), request.offset, request.length,
                             one, channel_.runtime(), bounds);
  const std::vector<std::vector<StatusRun>> answers = co_await std::move(asking);
  size_t bytes = 0;
  assert(answers.size() == ticket.contexts.size());
  const auto put = [&](std::span<const std::byte> part) {
    assert(bytes + part.size() <= piece.buffer.size() && "runs_max() bounds the answer");
    std::ranges::copy(part, piece.buffer.bytes().subspan(bytes, part.size()).begin());
    bytes += part.size();
  };
  for (size_t index = 0; index < answers.size(); ++index) {
    const Bytes payload = encode(ticket.contexts[index].id, answers[index]);
    const bool done = index + 1 == answers.size();
    put(replier_.chunk(request, done, type, payload.size()).head());
    put(payload);
  }
  piece.buffer.shrink(bytes);
  std::vector<io::Buffer> chunks;  // all of them in one buffer, and so in one message
  chunks.push_back(std::move(piece.buffer));
  Message message;
  message.with_data(std::move(chunks), std::move(piece.hold));
  replier_.complete(ticket, WireError::none, std::move(message));
}

/// Of an answer with all its chunks: it counts in the budget, as data does (X5), and is never so
/// large that few of them use that up.
size_t StatusAnswers::bytes_max(size_t context_count) const {
  constexpr size_t kAnswerBytes = 64 << 10;
  return std::clamp(context_count * (kStatusFrontBytesMax + kStatusRunBytesMax), kAnswerBytes,
                    io::BufferPool::kBufferBytesMax);
}

/// M10: what that holds, all contexts together.
size_t StatusAnswers::runs_max(size_t context_count) const {
  const size_t run_bytes =
      channel_.rules().extended_headers ? kStatusRunBytesMax : 2 * sizeof(uint32_t);
  return (bytes_max(context_count) - context_count * kStatusFrontBytesMax) / run_bytes;
}

}  // namespace nbd
