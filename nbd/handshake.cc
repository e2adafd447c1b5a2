// SPDX-License-Identifier: Apache-2.0
#include "nbd/handshake.h"

#include <fmt/format.h>

#include <system_error>

#include "io/big_endian.h"
#include "io/log.h"

namespace nbd {

Handshake::Handshake(io::Executor& executor, io::Clock& clock, io::Stream& stream,
                     Visibility visible, Admission& admission, HandshakeSettings settings,
                     TlsAccess tls)
    : executor_(executor),
      clock_(clock),
      transport_(stream),
      visible_(std::move(visible)),
      admission_(admission),
      settings_(settings),
      access_(std::move(tls)),
      stream_(&stream),
      inbox_(stream) {}

void Handshake::restart_patience() {
  patience_ = clock_.call_at(clock_.now() + settings_.option_patience, [this] {
    out_of_patience_ = true;
    transport_.abort();
  });
}

io::Task<std::optional<Negotiated>> Handshake::run() {
  restart_patience();
  std::optional<Negotiated> outcome;
  bool left = false;
  try {
    outcome = co_await negotiate();
  } catch (const std::system_error& error) {
    io::log(io::LogLevel::info, "nbd: {} left the handshake: {}", transport_.peer(), error.what());
    left = true;
  }
  patience_.reset();
  if (out_of_patience_) {
    throw ProtocolError(fmt::format(
        "no completed option within {} s",
        std::chrono::duration_cast<std::chrono::seconds>(settings_.option_patience).count()));
  }
  if (left) co_return std::nullopt;
  co_return std::move(outcome);
}

io::Task<std::optional<Negotiated>> Handshake::negotiate() {
  const auto greeting = Greeting::encode();
  const iovec piece = io::as_iovec(greeting);
  co_await stream_->send({&piece, 1});
  if (!co_await receive_client_flags()) co_return std::nullopt;
  for (uint32_t count = 0; count < settings_.options_max; ++count) {
    const std::optional<OptionHeader> header = co_await receive_option();
    if (!header) co_return std::nullopt;
    Bytes reply;
    const Next next = co_await answer(*header, reply);
    if (next == Next::tls) refuse_early_bytes();
    if (next == Next::list) {
      co_await send_list();
    } else {
      co_await send(reply);
    }
    restart_patience();
    if (next == Next::tls) {
      co_await enter_tls();
      if (out_of_patience_) co_return std::nullopt;
      restart_patience();
    }
    if (next == Next::transmission) co_return std::move(outcome_);
    if (next == Next::end) {
      co_await acknowledge_abort();
      co_return std::nullopt;
    }
  }
  throw ProtocolError(fmt::format("more than {} options", settings_.options_max));
}

io::Task<bool> Handshake::receive_client_flags() {
  if (!co_await inbox_.fill(sizeof(uint32_t), Inbox::kBufferBytes)) co_return false;
  const uint32_t flags = io::load_be<uint32_t>(inbox_.take<sizeof(uint32_t)>().data());
  if ((flags & ~uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
    throw ProtocolError(fmt::format("unknown client flags 0x{:x}", flags));
  }
  fixed_newstyle_ = (flags & kFixedNewstyle) != 0;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  co_return true;
}

io::Task<std::optional<OptionHeader>> Handshake::receive_option() {
  if (!co_await inbox_.fill(OptionHeader::kWireBytes, Inbox::kBufferBytes)) co_return std::nullopt;
  const OptionHeader header = OptionHeader::decode(inbox_.take<OptionHeader::kWireBytes>());
  if (header.length > kOptionBytesMax) {
    throw ProtocolError(fmt::format("option length {} exceeds {}", header.length, kOptionBytesMax));
  }
  if (!fixed_newstyle_ && header.option != Option::export_name) {
    throw ProtocolError(
        fmt::format("option {} from a client without fixed newstyle", number_of(header.option)));
  }
  data_.resize(header.length);
  co_await inbox_.receive(data_, Inbox::kBufferBytes);
  co_return header;
}

io::Task<void> Handshake::send(const Bytes& reply) {
  const iovec piece = io::as_iovec(reply);
  co_await stream_->send({&piece, 1});
}

io::Task<void> Handshake::acknowledge_abort() {
  // O2: closing with unread bytes would reset the connection and could lose the ACK.
  co_await stream_->finish_sending();
  co_await inbox_.discard_until_end();
  out_of_patience_ = false;  // a client that lingers has had its answer: no reason for a complaint
}

}  // namespace nbd
