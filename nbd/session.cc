#include "nbd/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <system_error>

#include "io/log.h"
#include "io/planted_bug.h"

namespace nbd {
namespace {

/// X4: what a request counts at least.
constexpr uint64_t kRequestBytesMin = 4096;

bool carries_bytes(Command command) {
  return command == Command::read || command == Command::write;
}

}  // namespace

Session::Session(std::unique_ptr<io::Stream> stream, Negotiated negotiated,
                 std::span<const std::byte> read_ahead, const SessionSettings& settings)
    : negotiated_(std::move(negotiated)),
      export_(negotiated_.place.exported()),
      runtime_(export_.home()),
      settings_(settings),
      rules_(negotiated_.rules),
      stream_(std::move(stream)),
      inbox_(*stream_, read_ahead),
      received_pieces_(runtime_.buffers),
      reply_pieces_(runtime_.buffers),
      places_(runtime_.executor, settings.requests_max),
      room_(runtime_.executor, settings.in_flight_bytes_max),
      change_room_(runtime_.executor, Export::kChangeBytesOfOne),
      describing_(runtime_.executor),
      replies_(runtime_.executor, *stream_),
      header_bytes_(rules_.extended_headers ? Request::kExtendedWireBytes : Request::kWireBytes) {}

Session::~Session() = default;

io::Task<void> Session::serve() {
  bool entered = false;
  try {
    export_.enter(*this);
    entered = true;
    sender_.spawn(replies_.run());
    watch_progress();
    co_await receive_until_end();
  } catch (...) {
    lose_client(std::current_exception());
  }
  try {
    co_await answers_.joined();
  } catch (...) {
    lose_client(std::current_exception());
  }
  replies_.finish();
  co_await sender_.joined();
  watch_.reset();
  assert(answers_.running() == 0 && "no piece of it is left at the device");
  if (entered) export_.leave(*this);
}

io::Task<void> Session::receive_until_end() {
  std::string broken;
  End end = End::orderly;
  try {
    end = co_await receive_requests();
  } catch (const std::exception& error) {  // ProtocolError, or a stream that failed or ended inside
    broken = error.what();
  }
  receiving_write_.reset();
  if (!broken.empty()) {
    stream_->abort();
    const bool ours = !end_reason_.empty();
    if (!ours) ++export_.counters().abnormal_ends;
    io::log(ours ? io::LogLevel::info : io::LogLevel::warning,
            "nbd: connection from {} to \"{}\" ended: {}", stream_->peer(), export_.name(),
            ours ? end_reason_ : broken);
    co_return;
  }
  if (end == End::orderly) co_return;
  // The reply must arrive before the drop: closing now, with unread bytes, would reset it away.
  ++export_.counters().abnormal_ends;
  co_await answers_.joined();
  replies_.finish();
  const auto alarm =
      runtime_.clock.call_at(runtime_.clock.now() + settings_.linger, [this] { stream_->abort(); });
  co_await inbox_.discard_until_end();
}

/// For lack of memory: a client without an answer would wait for ever, so the stream ends.
void Session::lose_client(std::exception_ptr cause) noexcept {
  try {
    std::rethrow_exception(std::move(cause));
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "nbd: a connection to \"{}\" cannot continue: {}", export_.name(),
            failure.what());
  } catch (...) {
  }
  stream_->abort();
}

io::Task<Session::End> Session::receive_requests() {
  for (;;) {
    if (!inbox_.has(header_bytes_)) {
      if (!co_await inbox_.fill(header_bytes_, ahead_max_)) co_return End::orderly;
    }
    const Request request = take_request();
    const io::SteadyTime arrived = runtime_.clock.now();
    note_request();
    if (request.command == Command::disconnect) co_return End::orderly;
    if (finishing_) {  // nothing can be answered any more
      co_await inbox_.discard_until_end();
      co_return End::orderly;
    }
    // A payload lies behind its request's header, and is not to be read into the inbox.
    ahead_max_ = request.payload_bytes > 0 ? header_bytes_ : Inbox::kBufferBytes;
    if (request.command == Command::write) {
      if (!co_await receive_write(request, arrived)) co_return End::after_reply;
    } else {
      co_await start(request, arrived);
    }
  }
}

Request Session::take_request() {
  if (rules_.extended_headers) {
    return Request::decode_extended(inbox_.take<Request::kExtendedWireBytes>());
  }
  return Request::decode(inbox_.take<Request::kWireBytes>());
}

void Session::note_request() {
  note_traffic();
  export_.counters().last_request_wall_ns =
      std::chrono::nanoseconds(runtime_.clock.wall_time().time_since_epoch()).count();
}

/// Refuses a request that is no WRITE, or starts its answer.
io::Task<void> Session::start(Request request, io::SteadyTime arrived) {
  InFlight in_flight = co_await wait_for_room(request);
  Ticket ticket{request, std::move(in_flight), arrived};
  if (request.command == Command::block_status) ticket.contexts = negotiated_.contexts;
  std::optional<Refusal> refusal;
  if (request.payload_bytes > 0) refusal = co_await receive_filter(ticket);
  if (!refusal) refusal = validate(ticket.request, export_, rules_);
  ++unanswered_;
  if (refusal) {
    reply_refused(std::move(ticket), *refusal);
  } else {
    answers_.spawn(answer(std::move(ticket)));
  }
}

io::Task<InFlight> Session::wait_for_room(const Request& request) {
  const uint64_t bytes =
      carries_bytes(request.command)
          ? std::clamp<uint64_t>(request.length, kRequestBytesMin, kPayloadBytesMax)
          : kRequestBytesMin;
  co_await places_.acquire(1);
  io::Grant place(places_, 1);
  co_await room_.acquire(bytes);
  co_return InFlight(std::move(place), io::Grant(room_, bytes), export_.counters(), bytes);
}

io::Task<void> Session::answer(Ticket ticket) {
  std::exception_ptr failure;
  try {
    co_await execute(ticket);
  } catch (...) {
    failure = std::current_exception();
  }
  const Command command = ticket.request.command;
  try {
    if (failure) {
      reply_failed(std::move(ticket), failure);
    } else if (command != Command::read && command != Command::block_status) {
      reply_done(std::move(ticket));
    }
  } catch (...) {
    lose_client(std::current_exception());
  }
  finish_when_answered();
}

io::Task<void> Session::execute(Ticket& ticket) {
  const Request& request = ticket.request;
  assert((request.command == Command::flush || request.offset + request.length <= export_.size()) &&
         "validate() has let it through");
  switch (request.command) {
    case Command::read:
      co_await answer_read(ticket);
      break;
    case Command::flush:
      PLANTED_BUG(flush_of_own_connection, if (io::planted_writers.erase(this) == 0) break)
      co_await device().flush();
      break;
    case Command::trim:
      co_await trim(request);
      break;
    case Command::write_zeroes:
      co_await write_zeroes(request);
      break;
    case Command::block_status:
      co_await answer_block_status(ticket);
      break;
    default:
      throw std::logic_error("a command that validate() lets through is not executed");
  }
}

/// The front of a chunk of the answer to `request`, in the form that was negotiated.
Message Session::chunk(const Request& request, bool done, ChunkType type,
                       uint64_t payload_bytes) const {
  const ChunkHeader header{done, type, request.cookie, payload_bytes, request.offset};
  return rules_.extended_headers ? Message(header.encode_extended()) : Message(header.encode());
}

void Session::reply_done(Ticket ticket) {
  count(ticket, WireError::none);
  Message message = rules_.extended_headers
                        ? chunk(ticket.request, true, ChunkType::none, 0)
                        : Message(SimpleReply{WireError::none, ticket.request.cookie}.encode());
  message.with_in_flight(std::move(ticket.in_flight));
  replies_.push(std::move(message));
}

void Session::reply_refused(Ticket ticket, const Refusal& refusal) {
  count(ticket, refusal.error);
  Message message;
  if (rules_.structured_replies) {
    Bytes body = encode_error(refusal.error, refusal.text);
    message = chunk(ticket.request, true, ChunkType::error, body.size());
    message.with_body(std::move(body));
  } else {
    message = Message(SimpleReply{refusal.error, ticket.request.cookie}.encode());
  }
  message.with_in_flight(std::move(ticket.in_flight));
  replies_.push(std::move(message));
}

void Session::reply_failed(Ticket ticket, std::exception_ptr failure) {
  Refusal refusal = refusal_for(failure);
  const Command command = ticket.request.command;
  const bool fast_zero = command == Command::write_zeroes && ticket.request.has(kFlagFastZero);
  if (refusal.error == WireError::enotsup && !fast_zero) refusal.error = WireError::eio;
  const bool storage_trouble =
      refusal.error == WireError::eio || refusal.error == WireError::enospc;
  const bool changes = command == Command::write || command == Command::write_zeroes ||
                       command == Command::trim || command == Command::flush;
  if (storage_trouble && changes) export_.note_refused_change(failure);
  reply_refused(std::move(ticket), refusal);
}

void Session::count(const Ticket& ticket, WireError result) {
  assert(unanswered_ > 0 && "a request is answered once");
  --unanswered_;
  const auto took = runtime_.clock.now() - ticket.arrived;
  export_.counters().count_request(
      ticket.request.command, result,
      std::chrono::duration_cast<std::chrono::microseconds>(took).count());
}

void Session::note_traffic() {
  export_.counters().last_traffic_steady_ns =
      std::chrono::nanoseconds(runtime_.clock.now().time_since_epoch()).count();
}

void Session::finish() {
  if (std::exchange(finishing_, true)) return;
  end_reason_ = "closed by the server";
  finish_when_answered();
}

void Session::finish_when_answered() {
  if (finishing_ && unanswered_ == 0) replies_.finish();
}

void Session::abort() {
  finishing_ = true;
  if (end_reason_.empty()) end_reason_ = "closed by the server";
  stream_->abort();
}

void Session::drop_half_received() { receiving_write_.reset(); }

void Session::watch_progress() noexcept try {
  constexpr uint32_t kTicks = 4;
  const bool receiving = inbox_.waits_inside_message() && inbox_.received() == watched_received_;
  const bool sending = replies_.sending() && replies_.sent() == watched_sent_;
  still_ticks_ = receiving || sending ? still_ticks_ + 1 : 0;
  watched_received_ = inbox_.received();
  watched_sent_ = replies_.sent();
  if (still_ticks_ > kTicks) {
    end_reason_ =
        sending ? "the client does not read its replies" : "the client stopped inside a request";
    ++export_.counters().abnormal_ends;
    stream_->abort();
    return;
  }
  watch_ = runtime_.clock.call_at(runtime_.clock.now() + settings_.stall / kTicks,
                                  [this] { watch_progress(); });
} catch (...) {
  lose_client(std::current_exception());
}

}  // namespace nbd
