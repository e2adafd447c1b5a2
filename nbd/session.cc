#include "nbd/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "io/log.h"

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
      rules_{negotiated_.structured_replies, !negotiated_.contexts.empty()},
      stream_(std::move(stream)),
      inbox_(*stream_, read_ahead),
      room_(runtime_.executor, settings.in_flight_bytes_max),
      large_reads_(runtime_.executor, 1),
      replies_(runtime_.executor, *stream_) {}

Session::~Session() = default;

io::Task<void> Session::serve() {
  export_.enter(*this);
  sender_.spawn(replies_.run());
  watch_progress();
  co_await receive_until_end();
  co_await join_answers();
  replies_.finish();
  co_await sender_.join();
  watch_.reset();
  export_.leave(*this);
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
  co_await join_answers();
  replies_.finish();
  const auto alarm =
      runtime_.clock.call_at(runtime_.clock.now() + settings_.linger, [this] { stream_->abort(); });
  co_await inbox_.discard_until_end();
}

/// Waits for every answer. One that could not even be queued, for lack of memory, leaves a client
/// that waits for ever: then the stream ends instead.
io::Task<void> Session::join_answers() {
  try {
    co_await answers_.join();
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "nbd: a request to \"{}\" has no answer: {}", export_.name(),
            failure.what());
    stream_->abort();
  }
}

io::Task<Session::End> Session::receive_requests() {
  for (;;) {
    if (answers_.failed()) throw std::runtime_error("a request has no answer");
    if (!inbox_.has(Request::kWireBytes)) {
      if (!co_await inbox_.fill(Request::kWireBytes, ahead_max_)) co_return End::orderly;
    }
    const Request request = Request::decode(inbox_.take<Request::kWireBytes>());
    const io::SteadyTime arrived = runtime_.clock.now();
    note_traffic();
    export_.counters().last_request_wall_ns =
        std::chrono::nanoseconds(runtime_.clock.wall_time().time_since_epoch()).count();
    if (request.command == Command::disconnect) co_return End::orderly;
    if (finishing_) {  // nothing can be answered any more
      co_await inbox_.discard_until_end();
      co_return End::orderly;
    }
    // Behind a WRITE's header lies its payload, which is not to be read into the inbox.
    ahead_max_ = request.command == Command::write ? Request::kWireBytes : Inbox::kBufferBytes;
    if (request.command == Command::write) {
      if (!co_await receive_write(request, arrived)) co_return End::after_reply;
      continue;
    }
    InFlight in_flight = co_await wait_for_room(request);
    const std::optional<Refusal> refusal = validate(request, export_, rules_);
    ++unanswered_;
    Ticket ticket{request, std::move(in_flight), arrived};
    if (refusal) {
      reply_refused(std::move(ticket), *refusal);
    } else {
      answers_.spawn(answer(std::move(ticket)));
    }
  }
}

io::Task<InFlight> Session::wait_for_room(const Request& request) {
  const uint64_t bytes =
      carries_bytes(request.command)
          ? std::clamp<uint64_t>(request.length, kRequestBytesMin, kPayloadBytesMax)
          : kRequestBytesMin;
  co_await room_.acquire(bytes);
  co_return InFlight(io::Grant(room_, bytes), export_.counters(), bytes);
}

io::Task<void> Session::answer(Ticket ticket) {
  std::exception_ptr failure;
  try {
    co_await execute(ticket);
  } catch (...) {
    failure = std::current_exception();
  }
  const Command command = ticket.request.command;
  if (failure) {
    reply_failed(std::move(ticket), failure);
  } else if (command != Command::read && command != Command::block_status) {
    reply_done(std::move(ticket));
  }
  finish_when_answered();
}

io::Task<void> Session::execute(Ticket& ticket) {
  const Request& request = ticket.request;
  switch (request.command) {
    case Command::read:
      co_await answer_read(ticket);
      break;
    case Command::flush:
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

io::Task<void> Session::trim(const Request& request) {
  if (request.length > 0) {
    const Export::WriteUnderWay under_way(export_);
    co_await device().discard(request.offset, request.length);
  }
  export_.counters().bytes_zeroed += request.length;
  if (request.has(kFlagFua)) co_await device().flush();
}

io::Task<void> Session::write_zeroes(const Request& request) {
  constexpr uint64_t kLargeBytes = 4 << 20;
  Counters& counters = export_.counters();
  if (request.has(kFlagFastZero) && request.has(kFlagNoHole)) {  // C11
    throw std::system_error(ENOTSUP, std::generic_category(),
                            "WRITE_ZEROES cannot be fast and allocate");
  }
  io::ZeroMode mode = io::ZeroMode::may_unmap;
  if (request.has(kFlagNoHole)) mode = io::ZeroMode::no_hole;
  if (request.has(kFlagFastZero)) mode = io::ZeroMode::fast_or_fail;
  if (request.length > 0) {
    const Export::WriteUnderWay under_way(export_);
    co_await device().write_zeroes(request.offset, request.length, mode);
  }
  counters.bytes_zeroed += request.length;
  if (request.length >= kLargeBytes) {
    ++counters.zero_requests_4mib;
    counters.zero_bytes_4mib += request.length;
  }
  if (request.has(kFlagFua)) co_await device().flush();
}

io::Task<void> Session::answer_block_status(Ticket& ticket) {
  const Request request = ticket.request;
  const bool one = request.has(kFlagReqOne);
  const std::vector<SelectedContext>& contexts = negotiated_.contexts;
  // All answers first: a failure must not follow chunks that promise a whole reply.
  std::vector<Bytes> payloads;
  for (const SelectedContext& selected : contexts) {
    const std::vector<StatusRun> runs =
        co_await block_status(*export_.contexts()[selected.index], request.offset, request.length,
                              one, runtime_.clock, settings_.status_bounds);
    payloads.push_back(encode_block_status(selected.id, runs));
  }
  count(ticket, WireError::none);
  for (size_t index = 0; index < payloads.size(); ++index) {
    const bool done = index + 1 == payloads.size();
    const ChunkHeader header{done, ChunkType::block_status, request.cookie,
                             static_cast<uint32_t>(payloads[index].size())};
    Message message(header.encode());
    message.with_body(std::move(payloads[index]));
    if (done) message.with_in_flight(std::move(ticket.in_flight));
    replies_.push(std::move(message));
  }
}

void Session::reply_done(Ticket ticket) {
  count(ticket, WireError::none);
  Message message(SimpleReply{WireError::none, ticket.request.cookie}.encode());
  message.with_in_flight(std::move(ticket.in_flight));
  replies_.push(std::move(message));
}

void Session::reply_refused(Ticket ticket, const Refusal& refusal) {
  count(ticket, refusal.error);
  const uint64_t cookie = ticket.request.cookie;
  if (negotiated_.structured_replies) {
    Bytes body = encode_error(refusal.error, refusal.text);
    Message message(
        ChunkHeader{true, ChunkType::error, cookie, static_cast<uint32_t>(body.size())}.encode());
    message.with_body(std::move(body)).with_in_flight(std::move(ticket.in_flight));
    replies_.push(std::move(message));
  } else {
    Message message(SimpleReply{refusal.error, cookie}.encode());
    message.with_in_flight(std::move(ticket.in_flight));
    replies_.push(std::move(message));
  }
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
  if (storage_trouble && changes && export_.kind() == ExportKind::ingest) export_.fail(failure);
  reply_refused(std::move(ticket), refusal);
}

void Session::count(const Ticket& ticket, WireError result) {
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

void Session::watch_progress() {
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
}

}  // namespace nbd
