// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "io/log.h"
#include "nbd/handshake.h"

/// STARTTLS, and what may be said before it. Spec: docs/nbd-support.md, "TLS".
namespace nbd {

/// T3: where TLS is required, nothing is answered before it but STARTTLS (and ABORT, which never
/// comes here).
void Handshake::require_tls_before(Option option) const {
  if (access_.mode != TlsMode::require || tls_ || option == Option::starttls) return;
  throw ProtocolError("TLS is required on this listener", OptionReply::err_tls_reqd);
}

Handshake::Next Handshake::answer_starttls(Bytes& reply) {
  if (!data_.empty()) throw ProtocolError("STARTTLS takes no data");  // O5: before the mode
  if (tls_) throw ProtocolError("this connection is inside TLS already");
  if (access_.mode == TlsMode::off) {
    throw ProtocolError("TLS is disabled on this listener", OptionReply::err_policy);
  }
  append_reply(reply, Option::starttls, OptionReply::ack, {});
  return Next::tls;
}

/// T6: what an attacker has put after STARTTLS, in the clear, must not be taken for the client's.
void Handshake::refuse_early_bytes() const {
  if (inbox_.ahead().empty() && !stream_->has_arrived()) return;
  throw ProtocolError("client sent data after STARTTLS before our reply");
}

io::Task<void> Handshake::enter_tls() {
  tls_ = access_.server->accept(executor_, transport_);
  std::exception_ptr failure;
  try {
    co_await tls_->handshake();
  } catch (const ProtocolError&) {
    failure = std::current_exception();
  }
  if (out_of_patience_) co_return;  // run() says so
  if (failure) std::rethrow_exception(failure);
  io::log(io::LogLevel::info, "nbd: {} is inside {}, user \"{}\"", transport_.peer(),
          tls_->description(), tls_->user());
  // T5: what was agreed on in the clear was agreed on with no one in particular.
  structured_replies_ = extended_headers_ = false;
  contexts_.clear();
  contexts_export_.clear();
  const std::string& user = tls_->user();
  if (!access_.owner_prefix.empty() && user.starts_with(access_.owner_prefix)) {
    visible_ = visible_.seen_by(user);
  }
  stream_ = tls_.get();
  inbox_ = Inbox(*stream_);
}

}  // namespace nbd
