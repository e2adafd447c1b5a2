// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nbd/tls.h"

struct stat;

/// TLS as the command line and the configuration file name it: the options of nbdkit, the files of
/// qemu and libvirt.
namespace app {

struct TlsOptions {
  std::optional<nbd::TlsMode> mode;  ///< --tls; not given: by the listener's address (T1, T3)
  std::string certificates;          ///< --tls-certificates, a directory
  std::string psk;                   ///< --tls-psk, a file
  bool verify_peer = false;
  std::vector<std::string> allowed_names;

  bool has_credentials() const { return !certificates.empty() || !psk.empty(); }
};

/// "off", "on" or "require". Throws UsageError.
nbd::TlsMode parse_tls_mode(const std::string& text);

/// What is said of one listener.
struct ListenerTls {
  std::string option;               ///< for error texts: "--nbd 192.0.2.1:10809"
  bool is_local = true;             ///< a loopback address or a Unix socket
  std::optional<nbd::TlsMode> own;  ///< said of this listener alone
};

/// The mode of a listener: what is said, else require beyond loopback, and on or off before it,
/// depending on whether there are credentials (T1, T3, L1). Throws UsageError for what would put
/// plain NBD on a network without `allow_plain`, and for TLS without credentials.
nbd::TlsMode tls_mode_of(const TlsOptions& options, bool allow_plain, const ListenerTls& listener);

/// The files of a server's directory, which is not "". Throws UsageError.
nbd::TlsCertificates read_server_certificates(const TlsOptions& options);

/// Reads the credentials; null when none are configured. Throws UsageError with file and cause.
std::shared_ptr<const nbd::TlsServer> load_tls(const TlsOptions& options);

/// What a client connects with; each may be "".
struct TlsClientFiles {
  std::string certificates;  ///< a directory: ca-cert.pem, and client-cert.pem, client-key.pem
  std::string psk;           ///< a file of keys
  std::string user;          ///< whose of them; "": the only one's
};

/// Reads the credentials; without any, what the system trusts counts. Throws UsageError with file
/// and cause.
std::shared_ptr<const nbd::TlsClient> load_tls_client(const TlsClientFiles& files);

/// The text of a file that only its owner may read; `status`, when not null, is filled with what
/// was read. Throws UsageError.
std::string read_private_file(const std::string& path, struct stat* status);

}  // namespace app
