#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "nbd/session.h"

/// BLOCK_STATUS: which contexts it is about, and the answer of each (M8-M10, X-3, X-4).
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

/// Takes the payload of a request that is no WRITE off the stream: the contexts that a BLOCK_STATUS
/// is about, or what no command has (X-5; validate() refuses its flag).
io::Task<std::optional<Refusal>> Session::receive_filter(Ticket& ticket) {
  Request& request = ticket.request;
  if (request.payload_bytes > kPayloadBytesMax) {
    throw ProtocolError(fmt::format("{} has {} bytes of payload", command_name(request.command),
                                    request.payload_bytes));
  }
  const bool takes_filter = request.command == Command::block_status && rules_.status_filter();
  if (!takes_filter) {
    co_await inbox_.discard(request.payload_bytes);
    co_return std::nullopt;
  }
  if (request.payload_bytes > StatusFilter::wire_bytes(negotiated_.contexts.size())) {
    co_await inbox_.discard(request.payload_bytes);
    co_return Refusal{WireError::einval, "BLOCK_STATUS names more contexts than were selected"};
  }
  Bytes payload(static_cast<size_t>(request.payload_bytes));
  co_await inbox_.receive(payload, header_bytes_);
  try {
    const StatusFilter filter = StatusFilter::decode(payload);
    request.length = filter.length;
    ticket.contexts = contexts_with(negotiated_.contexts, filter.context_ids);
  } catch (const ProtocolError& malformed) {
    co_return Refusal{WireError::einval, malformed.what()};
  }
  co_return std::nullopt;
}

io::Task<void> Session::answer_block_status(Ticket& ticket) {
  const Request request = ticket.request;
  const bool one = request.has(kFlagReqOne);
  const auto encode = rules_.extended_headers ? encode_block_status_ext : encode_block_status;
  const ChunkType type =
      rules_.extended_headers ? ChunkType::block_status_ext : ChunkType::block_status;
  std::vector<const MetaContext*> contexts;
  for (const SelectedContext& selected : ticket.contexts) {
    contexts.push_back(export_.contexts()[selected.index].get());
  }
  const io::Grant turn = co_await describing_.lock();
  BufferShare::Piece piece = co_await reply_pieces_.acquire(status_bytes_max(contexts.size()), 0);
  StatusBounds bounds = settings_.status_bounds;
  bounds.runs_max = std::min(bounds.runs_max, status_runs_max(contexts.size()));
  auto asking = block_status(device(), std::move(contexts), request.offset, request.length, one,
                             runtime_, bounds);
  const std::vector<std::vector<StatusRun>> answers = co_await std::move(asking);
  size_t bytes = 0;
  assert(answers.size() == ticket.contexts.size());
  const auto put = [&](std::span<const std::byte> part) {
    assert(bytes + part.size() <= piece.buffer.size() && "status_runs_max() bounds the answer");
    std::ranges::copy(part, piece.buffer.bytes().subspan(bytes, part.size()).begin());
    bytes += part.size();
  };
  for (size_t index = 0; index < answers.size(); ++index) {
    const Bytes payload = encode(ticket.contexts[index].id, answers[index]);
    const bool done = index + 1 == answers.size();
    put(chunk(request, done, type, payload.size()).head());
    put(payload);
  }
  piece.buffer.shrink(bytes);
  std::vector<io::Buffer> chunks;  // all of them in one buffer, and so in one message
  chunks.push_back(std::move(piece.buffer));
  count(ticket, WireError::none);
  Message message;
  message.with_data(std::move(chunks), std::move(piece.hold));
  message.with_in_flight(std::move(ticket.in_flight));
  replies_.push(std::move(message));
}

/// Of an answer with all its chunks: it counts in the budget, as data does (X5), and is never so
/// large that few of them use that up.
size_t Session::status_bytes_max(size_t context_count) const {
  constexpr size_t kAnswerBytes = 64 << 10;
  return std::clamp(context_count * (kStatusFrontBytesMax + kStatusRunBytesMax), kAnswerBytes,
                    io::BufferPool::kBufferBytesMax);
}

/// M10: what that holds, all contexts together.
size_t Session::status_runs_max(size_t context_count) const {
  const size_t run_bytes = rules_.extended_headers ? kStatusRunBytesMax : 2 * sizeof(uint32_t);
  return (status_bytes_max(context_count) - context_count * kStatusFrontBytesMax) / run_bytes;
}

}  // namespace nbd
