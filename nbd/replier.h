// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <vector>

#include "io/clock.h"
#include "nbd/channel.h"
#include "nbd/handshake.h"
#include "nbd/outbox.h"
#include "nbd/protocol.h"
#include "nbd/refusal.h"

namespace nbd {

/// A request under way: what its answer needs, wherever that is made.
struct Ticket {
  Request request;
  InFlight in_flight;
  io::SteadyTime arrived;
  std::vector<SelectedContext> contexts{};  ///< of a BLOCK_STATUS: those it is about
};

/// Answers requests in the form that was negotiated, and counts each as it is answered.
///
/// Invariant: every request that was announced is completed once, unless the channel is aborted.
/// Belongs to the thread of the export.
class Replier {
 public:
  explicit Replier(Channel& channel) : channel_(channel) {}

  /// A request has been received whole.
  void announce() { ++unanswered_; }
  bool has_answered_all() const { return unanswered_ == 0; }

  /// The front of a chunk of the answer to `request`.
  Message chunk(const Request& request, bool done, ChunkType type, uint64_t payload_bytes) const;
  /// Queues the last message of an answer; the ticket's place is free when it has been sent.
  void complete(Ticket& ticket, WireError result, Message message);

  void done(Ticket ticket);
  void refused(Ticket ticket, const Refusal& refusal);
  void failed(Ticket ticket, std::exception_ptr failure);

  /// No further request will be announced; sending ends after the last answer.
  void finish();
  bool is_finishing() const { return is_finishing_; }
  /// After each answer, also one that could not be queued.
  void finish_when_answered();

 private:
  Channel& channel_;
  uint64_t unanswered_ = 0;
  bool is_finishing_ = false;
};

}  // namespace nbd
