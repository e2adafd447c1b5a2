// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/executor.h"
#include "io/stream.h"

/// TLS for NBD, as the rest of nbd/ sees it: credentials, and a stream over a stream.
///
/// GnuTLS is named in tls_gnutls.h and in the files that include it, nowhere else.
/// Spec: docs/nbd-support.md, "TLS".
namespace nbd {

/// What a listener does about STARTTLS; it does not change during a connection.
enum class TlsMode : uint8_t { off, on, require };

/// The contents of the files that nbdkit and qemu users keep in one directory, in PEM.
struct TlsCertificates {
  std::string ca;           ///< ca-cert.pem
  std::string certificate;  ///< server-cert.pem
  std::string key;          ///< server-key.pem
  std::string crl;          ///< ca-crl.pem; "": none
  bool verify_peer = false;
  /// When not empty, only clients whose certificate has one of these names (distinguished name,
  /// common name or DNS name, with * as a wildcard) get in; implies verify_peer.
  std::vector<std::string> allowed_names;
};

/// The key of a user, if there is such a user. Called during handshakes, on any thread.
using PskLookup = std::function<std::optional<std::vector<std::byte>>(const std::string& user)>;

struct TlsSettings {
  std::optional<TlsCertificates> certificates;
  PskLookup psk;  ///< null: no pre-shared keys
};

/// A connection inside TLS. One receive and one send may be under way, as with any stream.
class TlsStream : public io::Stream {
 public:
  /// Throws ProtocolError with the reason, after the peer has been alerted.
  virtual io::Task<void> handshake() = 0;

  /// Who the client has proved to be, at the server: the user of its pre-shared key, or the common
  /// name of its verified certificate; "" for anybody. After handshake().
  virtual const std::string& user() const = 0;

  /// "TLS1.3 ECDHE-PSK AES-128-GCM", for logs.
  virtual std::string description() const = 0;

  /// Continues over another transport, the same connection on another thread's ring, and owns it.
  /// Nothing may be under way.
  virtual void move_to(io::Executor& executor, std::unique_ptr<io::Stream> transport) = 0;
};

/// The credentials of a server. Immutable; any thread.
class TlsServer : public std::enable_shared_from_this<TlsServer> {
 public:
  virtual ~TlsServer() = default;

  /// Throws std::runtime_error with a sentence when a certificate cannot be used.
  static std::shared_ptr<const TlsServer> make(const TlsSettings& settings);

  /// The server's end of a TLS connection over `transport`, which stays the caller's.
  virtual std::unique_ptr<TlsStream> accept(io::Executor& executor,
                                            io::Stream& transport) const = 0;
};

/// What a client trusts and what it proves, in PEM; "" for what there is not.
struct TlsClientSettings {
  std::string ca;                ///< ca-cert.pem; "": what the system trusts
  std::string certificate, key;  ///< client-cert.pem, client-key.pem
  std::string psk_user;          ///< "": no pre-shared key
  std::vector<std::byte> psk;
};

/// The credentials of a client. Immutable; any thread.
class TlsClient : public std::enable_shared_from_this<TlsClient> {
 public:
  virtual ~TlsClient() = default;

  /// Throws std::runtime_error with a sentence when a certificate cannot be used.
  static std::shared_ptr<const TlsClient> make(const TlsClientSettings& settings);

  /// The client's end of a TLS connection over `transport`, which stays the caller's. The server's
  /// certificate, if it shows one, must be for `host`; "": for any.
  virtual std::unique_ptr<TlsStream> connect(io::Executor& executor, io::Stream& transport,
                                             const std::string& host) const = 0;
};

/// What one listener does about TLS, and with which credentials (null when off).
struct TlsAccess {
  TlsMode mode = TlsMode::off;
  std::shared_ptr<const TlsServer> server;
  /// Users whose names begin like this own exports, and open those alone (T9); "": none do.
  std::string owner_prefix{};
};

}  // namespace nbd
