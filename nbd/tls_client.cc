// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>

#include <array>
#include <stdexcept>

#include "nbd/tls_gnutls.h"

namespace nbd {
namespace {

/// Which a server name indication may not have (RFC 6066, 3).
bool is_number(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> address;
  return ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
}

/// A client's end; one for each connection, because the name that the server must have belongs to
/// it.
class GnutlsClientEnd final : public TlsEnd {
 public:
  GnutlsClientEnd(std::shared_ptr<const TlsHandles> credentials, std::string host)
      : credentials_(std::move(credentials)), host_(std::move(host)) {}

  unsigned session_flags() const override { return GNUTLS_CLIENT; }
  void equip(gnutls_session_t session) const override {
    gnutls_priority_set(session, credentials_->priority);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials_->x509);
    if (credentials_->psk_client != nullptr) {
      gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials_->psk_client);
    }
    if (host_.empty() || is_number(host_)) return;
    gnutls_server_name_set(session, GNUTLS_NAME_DNS, host_.data(), host_.size());
  }
  bool admits(gnutls_session_t session, std::string& why) const override {
    return is_valid_peer(session, GNUTLS_KP_TLS_WWW_SERVER, host_, "server", why);
  }
  std::string user_of(gnutls_session_t) const override { return ""; }
  const PskLookup& psk() const override { return no_keys_; }

 private:
  const std::shared_ptr<const TlsHandles> credentials_;
  const std::string host_;
  const PskLookup no_keys_;
};

class GnutlsClient final : public TlsClient {
 public:
  explicit GnutlsClient(const TlsClientSettings& settings) {
    auto own = std::make_shared<TlsHandles>();
    if (settings.ca.empty()) {
      const int count = gnutls_certificate_set_x509_system_trust(own->x509);
      if (count < 0) throw_tls_failure("load the certificates that the system trusts", count);
    } else {
      own->trust(settings.ca, "");
    }
    own->verify_peers();
    if (!settings.certificate.empty()) {
      const gnutls_datum_t certificate = as_datum(settings.certificate);
      const gnutls_datum_t key = as_datum(settings.key);
      const int result =
          gnutls_certificate_set_x509_key_mem(own->x509, &certificate, &key, GNUTLS_X509_FMT_PEM);
      if (result < 0) throw_tls_failure("load client-cert.pem and client-key.pem", result);
    }
    if (!settings.psk_user.empty()) {
      if (gnutls_psk_allocate_client_credentials(&own->psk_client) < 0) throw std::bad_alloc();
      const auto* const bytes = reinterpret_cast<const unsigned char*>(settings.psk.data());
      const gnutls_datum_t key{const_cast<unsigned char*>(bytes),
                               static_cast<unsigned>(settings.psk.size())};
      const int result = gnutls_psk_set_client_credentials(
          own->psk_client, settings.psk_user.c_str(), &key, GNUTLS_PSK_KEY_RAW);
      if (result < 0) throw_tls_failure("take the pre-shared key", result);
    }
    credentials_ = std::move(own);
  }

  std::unique_ptr<TlsStream> connect(io::Executor& executor, io::Stream& transport,
                                     const std::string& host) const override {
    return std::make_unique<GnutlsStream>(executor, transport,
                                          std::make_shared<GnutlsClientEnd>(credentials_, host));
  }

 private:
  std::shared_ptr<const TlsHandles> credentials_;
};

}  // namespace

std::shared_ptr<const TlsClient> TlsClient::make(const TlsClientSettings& settings) {
  return std::make_shared<GnutlsClient>(settings);
}

}  // namespace nbd
