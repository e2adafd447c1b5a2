#include <fmt/format.h>

#include <algorithm>

#include "nbd/session.h"

/// BLOCK_STATUS: which contexts it is about, and the answer of each (M8-M10, X-3, X-4).
namespace nbd {
namespace {

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
  auto asking = block_status(device(), std::move(contexts), request.offset, request.length, one,
                             runtime_, settings_.status_bounds);
  const std::vector<std::vector<StatusRun>> answers = co_await std::move(asking);
  std::vector<Bytes> payloads;
  for (size_t index = 0; index < answers.size(); ++index) {
    payloads.push_back(encode(ticket.contexts[index].id, answers[index]));
  }
  count(ticket, WireError::none);
  for (size_t index = 0; index < payloads.size(); ++index) {
    const bool done = index + 1 == payloads.size();
    Message message = chunk(request, done, type, payloads[index].size());
    message.with_body(std::move(payloads[index]));
    if (done) message.with_in_flight(std::move(ticket.in_flight));
    replies_.push(std::move(message));
  }
}

}  // namespace nbd
