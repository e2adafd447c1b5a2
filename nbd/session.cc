// SPDX-License-Identifier: Apache-2.0
#include "nbd/session.h"

#include <algorithm>
#include <cassert>
#include <stdexcept>

#include "io/outcome.h"
#include "io/planted_bug.h"
#include "nbd/validate.h"

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
      settings_(settings),
      places_(negotiated_.place.exported().home().executor, settings.requests_max),
      room_(negotiated_.place.exported().home().executor, settings.in_flight_bytes_max),
      reply_pieces_(negotiated_.place.exported().home().buffers),
      channel_(std::move(stream), read_ahead, negotiated_.place.exported(), negotiated_.rules),
      replier_(channel_),
      reads_(channel_, replier_, reply_pieces_),
      writes_(channel_, replier_, answers_),
      changes_(channel_, settings.change_bytes_at_once),
      status_(channel_, replier_, reply_pieces_, negotiated_.contexts, settings.status_bounds),
      watch_(channel_, settings.stall) {}

Session::~Session() = default;

io::Task<void> Session::serve() {
  bool entered = false;
  try {
    channel_.exported().enter(*this);
    entered = true;
    sender_.spawn(channel_.outbox().run());
    watch_.start();
    co_await receive_until_end();
  } catch (...) {
    channel_.lose_client(std::current_exception());
  }
  try {
    co_await answers_.joined();
  } catch (...) {
    channel_.lose_client(std::current_exception());
  }
  assert((replier_.has_answered_all() || channel_.is_aborted()) && "all that was received");
  channel_.outbox().finish();
  co_await sender_.joined();
  watch_.stop();
  if (entered) channel_.exported().leave(*this);
}

io::Task<void> Session::receive_until_end() {
  std::string broken;
  End end = End::orderly;
  try {
    end = co_await receive_requests();
  } catch (const std::exception& error) {  // ProtocolError, or a stream that failed or ended inside
    broken = error.what();
  }
  writes_.drop_half_received();
  if (!broken.empty()) {
    channel_.end_broken(broken);
    co_return;
  }
  if (end == End::orderly) co_return;
  // The reply must arrive before the drop: closing now, with unread bytes, would reset it away.
  ++channel_.counters().abnormal_ends;
  co_await answers_.joined();
  channel_.outbox().finish();
  const io::Clock& clock = channel_.runtime().clock;
  const auto alarm = channel_.runtime().clock.call_at(clock.now() + settings_.linger,
                                                      [this] { channel_.abort(); });
  co_await channel_.inbox().discard_until_end();
}

io::Task<Session::End> Session::receive_requests() {
  Inbox& inbox = channel_.inbox();
  const size_t header_bytes = channel_.header_bytes();
  for (;;) {
    if (!inbox.has(header_bytes)) {
      if (!co_await inbox.fill(header_bytes, ahead_max_)) co_return End::orderly;
    }
    const Request request = take_request();
    const io::SteadyTime arrived = channel_.runtime().clock.now();
    note_request();
    if (request.command == Command::disconnect) co_return End::orderly;
    if (replier_.is_finishing()) {  // nothing can be answered any more
      co_await inbox.discard_until_end();
      co_return End::orderly;
    }
    // A payload follows its request's header, and is not to be read into the inbox.
    ahead_max_ = request.payload_bytes > 0 ? header_bytes : Inbox::kBufferBytes;
    if (request.command == Command::write) {
      InFlight in_flight = co_await wait_for_room(request);
      io::Task<bool> receiving = writes_.receive(request, std::move(in_flight), arrived);
      if (!co_await std::move(receiving)) co_return End::after_reply;
    } else {
      co_await start(request, arrived);
    }
  }
}

Request Session::take_request() {
  Inbox& inbox = channel_.inbox();
  if (channel_.rules().extended_headers) {
    return Request::decode_extended(inbox.take<Request::kExtendedWireBytes>());
  }
  return Request::decode(inbox.take<Request::kWireBytes>());
}

void Session::note_request() {
  channel_.note_traffic();
  channel_.counters().last_request_wall_ns =
      std::chrono::nanoseconds(channel_.runtime().clock.wall_time().time_since_epoch()).count();
}

/// Refuses a request other than WRITE, or starts its answer.
io::Task<void> Session::start(Request request, io::SteadyTime arrived) {
  InFlight in_flight = co_await wait_for_room(request);
  Ticket ticket{request, std::move(in_flight), arrived};
  if (request.command == Command::block_status) ticket.contexts = negotiated_.contexts;
  std::optional<Refusal> refusal;
  if (request.payload_bytes > 0) refusal = co_await status_.receive_filter(ticket);
  if (!refusal) refusal = validate(ticket.request, channel_.exported(), channel_.rules());
  replier_.announce();
  if (refusal) {
    replier_.refused(std::move(ticket), *refusal);
  } else {
    answers_.spawn(answer(std::move(ticket)));
  }
}

io::Task<InFlight> Session::wait_for_room(Request request) {
  const uint64_t bytes =
      carries_bytes(request.command)
          ? std::clamp<uint64_t>(request.length, kRequestBytesMin, kPayloadBytesMax)
          : kRequestBytesMin;
  co_await places_.acquire(1);
  io::Grant place(places_, 1);
  co_await room_.acquire(bytes);
  co_return InFlight(std::move(place), io::Grant(room_, bytes), channel_.counters(), bytes);
}

io::Task<void> Session::answer(Ticket ticket) {
  const io::Outcome<> executed = co_await io::attempt([&] { return execute(ticket); });
  const Command command = ticket.request.command;
  try {
    if (executed.failed()) {
      replier_.failed(std::move(ticket), executed.failure());
    } else if (command != Command::read && command != Command::block_status) {
      replier_.done(std::move(ticket));
    }
  } catch (...) {
    channel_.lose_client(std::current_exception());
  }
  replier_.finish_when_answered();
}

io::Task<void> Session::execute(Ticket& ticket) {
  const Request& request = ticket.request;
  assert((request.command == Command::flush ||
          request.offset + request.length <= channel_.exported().size()) &&
         "validate() has let it through");
  switch (request.command) {
    case Command::read:
      co_await reads_.answer(ticket);
      break;
    case Command::flush:
      PLANTED_BUG(flush_of_own_connection, if (io::planted_writers.erase(&channel_) == 0) break)
      co_await channel_.device().flush();
      break;
    case Command::trim:
      co_await changes_.trim(request);
      break;
    case Command::write_zeroes:
      co_await changes_.write_zeroes(request);
      break;
    case Command::block_status:
      co_await status_.answer(ticket);
      break;
    default:
      throw std::logic_error("a command that validate() lets through is not executed");
  }
}

void Session::finish() {
  if (replier_.is_finishing()) return;
  channel_.close_by_server();
  replier_.finish();
}

void Session::abort() {
  channel_.close_by_server();
  replier_.finish();
  channel_.abort();
}

void Session::drop_half_received() { writes_.drop_half_received(); }

}  // namespace nbd
