// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <memory>
#include <string>
#include <vector>

#include "io/sync.h"
#include "nbd/tls.h"

/// TLS by GnuTLS: what tls_credentials.cc, tls_client.cc and tls_stream.cc share.
namespace nbd {

/// "load server-cert.pem: Base64 decoding error." Throws; for results of GnuTLS below zero.
[[noreturn]] void throw_tls_failure(std::string_view doing, int result);

/// Credentials as GnuTLS holds them; given back also when a constructor throws.
struct TlsHandles {
  gnutls_certificate_credentials_t x509 = nullptr;
  gnutls_psk_server_credentials_t psk_server = nullptr;
  gnutls_psk_client_credentials_t psk_client = nullptr;
  gnutls_priority_t priority = nullptr;

  /// With priorities, and certificate credentials that trust nobody.
  TlsHandles();
  TlsHandles(const TlsHandles&) = delete;
  ~TlsHandles();
  /// In PEM; `crl` may be "".
  void trust(const std::string& ca, const std::string& crl);
  /// From now on TlsEnd::admits() is asked about a peer's certificate.
  void verify_peers();
};

/// What a session asks of its end of the connection. Immutable; any thread.
class TlsEnd {
 public:
  virtual ~TlsEnd() = default;

  /// GNUTLS_SERVER or GNUTLS_CLIENT, and more.
  virtual unsigned session_flags() const = 0;
  /// Gives a new session its credentials and its priorities.
  virtual void equip(gnutls_session_t session) const = 0;
  /// Whether the peer's certificate will do. Appends the reason if not.
  virtual bool admits(gnutls_session_t session, std::string& why) const = 0;
  /// Who the peer has proved to be; "" for anybody.
  virtual std::string user_of(gnutls_session_t session) const = 0;
  /// The key of a user, at a server.
  virtual const PskLookup& psk() const = 0;
};

class GnutlsServer final : public TlsServer, public TlsEnd {
 public:
  explicit GnutlsServer(const TlsSettings& settings);

  std::unique_ptr<TlsStream> accept(io::Executor& executor, io::Stream& transport) const override;

  unsigned session_flags() const override { return GNUTLS_SERVER | GNUTLS_NO_TICKETS; }
  void equip(gnutls_session_t session) const override;
  bool admits(gnutls_session_t session, std::string& why) const override;
  std::string user_of(gnutls_session_t session) const override;
  const PskLookup& psk() const override { return psk_; }

 private:
  void load(const TlsCertificates& certificates);
  bool is_allowed(gnutls_x509_crt_t certificate, std::string& why) const;

  TlsHandles own_;
  PskLookup psk_;
  bool verify_peer_ = false;
  std::vector<std::string> allowed_names_;
};

/// Whether the peer's certificate is one of ours for `purpose` (GNUTLS_KP_…), and for `host` unless
/// that is "". `whose`: "client" or "server", for the reason.
bool is_valid_peer(gnutls_session_t session, const char* purpose, const std::string& host,
                   std::string_view whose, std::string& why);
gnutls_datum_t as_datum(const std::string& text);

/// GnuTLS between two buffers of ciphertext; coroutines move those to and from the transport.
///
/// Invariant: GnuTLS never waits. What it pulls has arrived before, or it is asked to come again;
/// what it pushes is queued and leaves in as few sends as possible. `outgoing_` is only appended to
/// by GnuTLS, and swapped away before it is sent, so that a receive that answers a key update
/// cannot disturb a send under way.
class GnutlsStream final : public TlsStream {
 public:
  GnutlsStream(io::Executor& executor, io::Stream& transport, std::shared_ptr<const TlsEnd> end);
  ~GnutlsStream() override;

  io::Task<void> handshake() override;
  const std::string& user() const override { return user_; }
  std::string description() const override;
  void move_to(io::Executor& executor, std::unique_ptr<io::Stream> transport) override;

  io::Task<size_t> receive(std::span<const iovec> into) override;
  io::Task<void> send(std::span<const iovec> from) override;
  io::Task<void> finish_sending() override;
  void abort() noexcept override { transport_->abort(); }
  bool has_arrived() const override {
    return arrived_begin_ < arrived_end_ || transport_->has_arrived();
  }
  std::string peer() const override { return transport_->peer(); }

  const TlsEnd& end() const { return *end_; }
  void refuse_peer(std::string why) { refusal_ = std::move(why); }

 private:
  static ssize_t pull(gnutls_transport_ptr_t self, void* into, size_t count);
  static ssize_t push(gnutls_transport_ptr_t self, const giovec_t* pieces, int count);
  static int can_pull(gnutls_transport_ptr_t self, unsigned milliseconds);

  io::Task<void> fill();
  io::Task<void> flush();
  size_t decrypt(std::span<const iovec> into);
  void encrypt(std::span<const std::byte> record);
  [[noreturn]] void fail(std::string_view verb, int result) const;

  io::Stream* transport_;
  std::unique_ptr<io::Stream> owned_transport_;
  const std::shared_ptr<const TlsEnd> end_;
  gnutls_session_t session_ = nullptr;
  std::string user_;
  std::string refusal_;  // why the peer's certificate is not taken

  std::unique_ptr<std::byte[]> arrived_;  // ciphertext; GnuTLS has taken all before arrived_begin_
  size_t arrived_capacity_ = 0, arrived_wanted_;
  size_t arrived_begin_ = 0, arrived_end_ = 0;
  bool transport_ended_ = false;  // no more ciphertext comes
  bool ended_ = false;            // no more plaintext comes

  std::unique_ptr<io::Mutex> sending_;
  std::vector<std::byte> outgoing_;  // ciphertext, appended to by push()
  std::vector<std::byte> leaving_;   // being sent
  std::vector<std::byte> staged_;    // plaintext too short for a record of its own
};

}  // namespace nbd
