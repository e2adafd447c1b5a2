// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "nbd/protocol.h"
#include "nbd/tls_gnutls.h"

namespace nbd {
namespace {

/// Plaintext of one record; TLS knows no larger ones.
constexpr size_t kRecordBytes = 16384;
/// Ciphertext that leaves in one send: 8 records. More falls out of the processor's cache on the
/// way.
constexpr size_t kGatherBytes = 128 << 10;
/// Ciphertext taken from the transport at once: little until the client shows that it sends a lot.
constexpr size_t kArrivedBytesMin = 16 << 10;
constexpr size_t kArrivedBytesMax = 128 << 10;

bool is_passing(ssize_t result) {
  return result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED;
}

}  // namespace

GnutlsStream::GnutlsStream(io::Executor& executor, io::Stream& transport,
                           std::shared_ptr<const TlsEnd> end)
    : transport_(&transport),
      end_(std::move(end)),
      arrived_wanted_(kArrivedBytesMin),
      sending_(std::make_unique<io::Mutex>(executor)) {
  const unsigned flags = end_->session_flags() | GNUTLS_NONBLOCK;
  if (const int result = gnutls_init(&session_, flags); result < 0) {
    throw_tls_failure("start a session", result);
  }
  gnutls_session_set_ptr(session_, this);
  gnutls_transport_set_ptr(session_, this);
  gnutls_transport_set_pull_function(session_, pull);
  gnutls_transport_set_pull_timeout_function(session_, can_pull);
  gnutls_transport_set_vec_push_function(session_, push);
  end_->equip(session_);
}

GnutlsStream::~GnutlsStream() { gnutls_deinit(session_); }

void GnutlsStream::move_to(io::Executor& executor, std::unique_ptr<io::Stream> transport) {
  assert(!sending_->locked() && outgoing_.empty());
  owned_transport_ = std::move(transport);
  transport_ = owned_transport_.get();
  sending_ = std::make_unique<io::Mutex>(executor);
}

ssize_t GnutlsStream::pull(gnutls_transport_ptr_t self, void* into, size_t count) {
  auto& stream = *static_cast<GnutlsStream*>(self);
  const size_t ready = std::min(count, stream.arrived_end_ - stream.arrived_begin_);
  if (ready == 0 && !stream.transport_ended_) {
    gnutls_transport_set_errno(stream.session_, EAGAIN);
    return -1;
  }
  assert(stream.arrived_begin_ <= stream.arrived_end_ &&
         stream.arrived_end_ <= stream.arrived_capacity_);
  if (ready > 0) std::memcpy(into, stream.arrived_.get() + stream.arrived_begin_, ready);
  stream.arrived_begin_ += ready;
  return static_cast<ssize_t>(ready);
}

int GnutlsStream::can_pull(gnutls_transport_ptr_t self, unsigned) {
  const auto& stream = *static_cast<GnutlsStream*>(self);
  return stream.arrived_begin_ < stream.arrived_end_ || stream.transport_ended_ ? 1 : 0;
}

ssize_t GnutlsStream::push(gnutls_transport_ptr_t self, const giovec_t* pieces, int count) {
  std::vector<std::byte>& outgoing = static_cast<GnutlsStream*>(self)->outgoing_;
  ssize_t pushed = 0;
  for (const giovec_t& piece : std::span(pieces, static_cast<size_t>(count))) {
    const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
    outgoing.insert(outgoing.end(), bytes, bytes + piece.iov_len);
    pushed += static_cast<ssize_t>(piece.iov_len);
  }
  return pushed;
}

io::Task<void> GnutlsStream::fill() {
  assert(arrived_begin_ == arrived_end_ && "GnuTLS takes all before it asks for more");
  if (arrived_capacity_ < arrived_wanted_) {
    arrived_ = std::make_unique_for_overwrite<std::byte[]>(arrived_wanted_);
    arrived_capacity_ = arrived_wanted_;
  }
  arrived_begin_ = arrived_end_ = 0;
  const iovec room{arrived_.get(), arrived_capacity_};
  arrived_end_ = co_await transport_->receive({&room, 1});
  transport_ended_ = arrived_end_ == 0;
  if (arrived_end_ == arrived_capacity_) {
    arrived_wanted_ = std::min(arrived_capacity_ * 2, kArrivedBytesMax);
  }
}

/// Sends what GnuTLS has queued, also what it queues meanwhile. Under the lock.
io::Task<void> GnutlsStream::flush() {
  while (!outgoing_.empty()) {
    assert(leaving_.empty() && "ciphertext leaves in order, one send at a time");
    leaving_.swap(outgoing_);
    const iovec piece = io::as_iovec(leaving_);
    co_await transport_->send({&piece, 1});
    leaving_.clear();
  }
}

io::Task<void> GnutlsStream::handshake() {
  for (;;) {
    const int result = gnutls_handshake(session_);
    if (result < 0 && gnutls_error_is_fatal(result) != 0) {
      gnutls_alert_send_appropriate(session_, result);
      const std::string reason = refusal_.empty() ? gnutls_strerror(result) : refusal_;
      try {
        co_await flush();
      } catch (const std::system_error&) {
        // The peer has gone; the reason below is what counts.
      }
      throw ProtocolError(fmt::format("TLS handshake failed: {}", reason));
    }
    co_await flush();
    if (result == GNUTLS_E_SUCCESS) break;
    if (is_passing(result) && arrived_begin_ == arrived_end_) co_await fill();
  }
  user_ = end_->user_of(session_);
}

std::string GnutlsStream::description() const {
  const std::unique_ptr<char, void (*)(void*)> text(gnutls_session_get_desc(session_), gnutls_free);
  return text ? text.get() : "TLS";
}

void GnutlsStream::fail(std::string_view verb, int result) const {
  throw std::system_error(EPROTO, std::generic_category(),
                          fmt::format("{} {}: {}", verb, peer(), gnutls_strerror(result)));
}

/// Fills the front of `into` with what has arrived, as far as that goes without waiting.
size_t GnutlsStream::decrypt(std::span<const iovec> into) {
  size_t total = 0;
  for (const iovec& piece : into) {
    for (size_t filled = 0; filled < piece.iov_len;) {
      const ssize_t result = gnutls_record_recv(
          session_, static_cast<std::byte*>(piece.iov_base) + filled, piece.iov_len - filled);
      if (result > 0) {
        filled += static_cast<size_t>(result);
        total += static_cast<size_t>(result);
        continue;
      }
      if (result == GNUTLS_E_WARNING_ALERT_RECEIVED) continue;
      // Also said after a message that was no data, a key update: more may follow.
      if (is_passing(result) && arrived_begin_ < arrived_end_) continue;
      if (is_passing(result)) return total;
      // T12: an end without close-notify is an end.
      ended_ = result == 0 || result == GNUTLS_E_PREMATURE_TERMINATION;
      if (ended_ || total > 0) return total;  // a failure is reported by the next call again
      fail("receive from", static_cast<int>(result));
    }
  }
  return total;
}

io::Task<size_t> GnutlsStream::receive(std::span<const iovec> into) {
  while (!ended_) {
    const size_t count = decrypt(into);
    // A key update may want an answer; a send under way takes it along.
    if (!outgoing_.empty() && !sending_->locked()) {
      const io::Grant turn = co_await sending_->lock();
      co_await flush();
    }
    if (count > 0) co_return count;
    if (!ended_) co_await fill();
  }
  co_return 0;
}

void GnutlsStream::encrypt(std::span<const std::byte> record) {
  while (!record.empty()) {
    const ssize_t result = gnutls_record_send(session_, record.data(), record.size());
    if (is_passing(result)) continue;
    if (result < 0) fail("send to", static_cast<int>(result));
    record = record.subspan(static_cast<size_t>(result));
  }
}

io::Task<void> GnutlsStream::send(std::span<const iovec> from) {
  const io::Grant turn = co_await sending_->lock();
  for (const iovec& piece : from) {
    std::span<const std::byte> rest(static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
    while (!rest.empty()) {
      if (staged_.empty() && rest.size() >= kRecordBytes) {
        encrypt(rest.first(kRecordBytes));  // as it lies
        rest = rest.subspan(kRecordBytes);
      } else {
        const size_t count = std::min(rest.size(), kRecordBytes - staged_.size());
        staged_.insert(staged_.end(), rest.begin(), rest.begin() + static_cast<ptrdiff_t>(count));
        rest = rest.subspan(count);
        if (staged_.size() == kRecordBytes) {
          encrypt(staged_);
          staged_.clear();
        }
      }
      if (outgoing_.size() >= kGatherBytes) co_await flush();
    }
  }
  assert(staged_.size() < kRecordBytes);
  encrypt(staged_);
  staged_.clear();
  co_await flush();
}

io::Task<void> GnutlsStream::finish_sending() {
  const io::Grant turn = co_await sending_->lock();
  gnutls_bye(session_, GNUTLS_SHUT_WR);  // T12: only queues the close-notify, and cannot wait
  co_await flush();
  co_await transport_->finish_sending();
}

}  // namespace nbd
