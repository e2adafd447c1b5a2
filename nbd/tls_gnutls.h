#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <memory>
#include <string>
#include <vector>

#include "io/sync.h"
#include "nbd/tls.h"

/// TLS by GnuTLS: what tls_credentials.cc and tls_stream.cc share.
namespace nbd {

/// "load server-cert.pem: Base64 decoding error." Throws; for results of GnuTLS below zero.
[[noreturn]] void throw_tls_failure(std::string_view doing, int result);

class GnutlsServer final : public TlsServer {
 public:
  explicit GnutlsServer(const TlsSettings& settings);

  std::unique_ptr<TlsStream> accept(io::Executor& executor, io::Stream& transport) const override;

  /// Gives a new session its credentials and its priorities.
  void equip(gnutls_session_t session) const;
  /// Whether a client that proved nothing but a certificate gets in. Appends the reason if not.
  bool admits(gnutls_session_t session, std::string& why) const;
  bool verifies_peers() const { return verify_peer_; }
  const PskLookup& psk() const { return psk_; }

 private:
  void load(const TlsCertificates& certificates);
  bool is_allowed(gnutls_x509_crt_t certificate, std::string& why) const;

  /// Given back also when the constructor throws.
  struct Handles {
    gnutls_certificate_credentials_t x509 = nullptr;
    gnutls_psk_server_credentials_t psk_credentials = nullptr;
    gnutls_priority_t priority = nullptr;
    Handles() = default;
    Handles(const Handles&) = delete;
    ~Handles();
  };

  Handles own_;
  PskLookup psk_;
  bool verify_peer_ = false;
  std::vector<std::string> allowed_names_;
};

/// The common name of the certificate that the client has shown; "" when there is none.
std::string common_name_of_peer(gnutls_session_t session);

/// GnuTLS between two buffers of ciphertext; coroutines move those to and from the transport.
///
/// Invariant: GnuTLS never waits. What it pulls has arrived before, or it is asked to come again;
/// what it pushes is queued and leaves in as few sends as possible. `outgoing_` is only appended to
/// by GnuTLS, and swapped away before it is sent, so that a receive that answers a key update
/// cannot disturb a send under way.
class GnutlsStream final : public TlsStream {
 public:
  GnutlsStream(io::Executor& executor, io::Stream& transport,
               std::shared_ptr<const GnutlsServer> server);
  ~GnutlsStream() override;

  io::Task<void> handshake() override;
  const std::string& user() const override { return user_; }
  std::string description() const override;
  void move_to(io::Executor& executor, std::unique_ptr<io::Stream> transport) override;

  io::Task<size_t> receive(std::span<const iovec> into) override;
  io::Task<void> send(std::span<const iovec> from) override;
  io::Task<void> finish_sending() override;
  void abort() noexcept override { transport_->abort(); }
  bool has_arrived() const override { return begin_ < end_ || transport_->has_arrived(); }
  std::string peer() const override { return transport_->peer(); }

  const GnutlsServer& server() const { return *server_; }
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
  const std::shared_ptr<const GnutlsServer> server_;
  gnutls_session_t session_ = nullptr;
  std::string user_;
  std::string refusal_;  // why the peer's certificate is not taken

  std::unique_ptr<std::byte[]> arrived_;  // ciphertext; GnuTLS has taken all before begin_
  size_t arrived_capacity_ = 0, arrived_wanted_;
  size_t begin_ = 0, end_ = 0;
  bool transport_ended_ = false;  // no more ciphertext comes
  bool ended_ = false;            // no more plaintext comes

  std::unique_ptr<io::Mutex> sending_;
  std::vector<std::byte> outgoing_;  // ciphertext, appended to by push()
  std::vector<std::byte> leaving_;   // being sent
  std::vector<std::byte> staged_;    // plaintext too short for a record of its own
};

}  // namespace nbd
