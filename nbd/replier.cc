// SPDX-License-Identifier: Apache-2.0
#include "nbd/replier.h"

#include <cassert>
#include <chrono>

namespace nbd {

Message Replier::chunk(const Request& request, bool done, ChunkType type,
                       uint64_t payload_bytes) const {
  const ChunkHeader header{done, type, request.cookie, payload_bytes, request.offset};
  return channel_.rules().extended_headers ? Message(header.encode_extended())
                                           : Message(header.encode());
}

void Replier::complete(Ticket& ticket, WireError result, Message message) {
  assert(unanswered_ > 0 && "a request is answered once");
  --unanswered_;
  const auto took = channel_.runtime().clock.now() - ticket.arrived;
  channel_.counters().count_request(
      ticket.request.command, result,
      std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  message.with_in_flight(std::move(ticket.in_flight));
  channel_.outbox().push(std::move(message));
}

void Replier::done(Ticket ticket) {
  complete(ticket, WireError::none,
           channel_.rules().extended_headers
               ? chunk(ticket.request, true, ChunkType::none, 0)
               : Message(SimpleReply{WireError::none, ticket.request.cookie}.encode()));
}

void Replier::refused(Ticket ticket, const Refusal& refusal) {
  Message message;
  if (channel_.rules().structured_replies) {
    Bytes body = encode_error(refusal.error, refusal.text);
    message = chunk(ticket.request, true, ChunkType::error, body.size());
    message.with_body(std::move(body));
  } else {
    message = Message(SimpleReply{refusal.error, ticket.request.cookie}.encode());
  }
  complete(ticket, refusal.error, std::move(message));
}

void Replier::failed(Ticket ticket, std::exception_ptr failure) {
  Refusal refusal = refusal_for(failure);
  const Command command = ticket.request.command;
  const bool fast_zero = command == Command::write_zeroes && ticket.request.has(kFlagFastZero);
  if (refusal.error == WireError::enotsup && !fast_zero) refusal.error = WireError::eio;
  const bool storage_trouble =
      refusal.error == WireError::eio || refusal.error == WireError::enospc;
  const bool changes = command == Command::write || command == Command::write_zeroes ||
                       command == Command::trim || command == Command::flush;
  if (storage_trouble && changes) channel_.exported().note_refused_change(failure);
  refused(std::move(ticket), refusal);
}

void Replier::finish() {
  is_finishing_ = true;
  finish_when_answered();
}

void Replier::finish_when_answered() {
  if (is_finishing_ && unanswered_ == 0) channel_.outbox().finish();
}

}  // namespace nbd
