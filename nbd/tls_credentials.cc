// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fnmatch.h>
#include <gnutls/x509-ext.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "nbd/tls_gnutls.h"

namespace nbd {
namespace {

/// T10: with PSK, GnuTLS's own order picks ChaCha20, which is six times slower where the processor
/// has AES instructions.
constexpr const char* kPriorityWithAes =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CHACHA20-POLY1305:+ECDHE-PSK:+DHE-PSK:+PSK:"
    "%SERVER_PRECEDENCE";
constexpr const char* kPriorityWithoutAes =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK:%SERVER_PRECEDENCE";

bool processor_has_aes() {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_cpu_supports("aes") != 0;
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
  return false;
#endif
}

/// GnuTLS asks for the key of `user`. Below zero: there is no such user.
int find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key) {
  const auto& stream = *static_cast<const GnutlsStream*>(gnutls_session_get_ptr(session));
  try {
    const auto found = stream.end().psk()(user);
    if (!found) return -1;
    key->data = static_cast<unsigned char*>(gnutls_malloc(found->size()));
    if (key->data == nullptr) return -1;
    std::memcpy(key->data, found->data(), found->size());
    key->size = static_cast<unsigned>(found->size());
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

/// GnuTLS asks whether the peer's certificate will do.
int verify_peer(gnutls_session_t session) {
  auto& stream = *static_cast<GnutlsStream*>(gnutls_session_get_ptr(session));
  std::string why;
  try {
    if (stream.end().admits(session, why)) return 0;
    stream.refuse_peer(std::move(why));
  } catch (const std::exception&) {
    // Out of memory: refused without a reason.
  }
  return GNUTLS_E_CERTIFICATE_ERROR;
}

struct Certificate {
  gnutls_x509_crt_t crt = nullptr;
  explicit Certificate(const gnutls_datum_t& der) {
    if (gnutls_x509_crt_init(&crt) < 0) throw std::bad_alloc();
    if (gnutls_x509_crt_import(crt, &der, GNUTLS_X509_FMT_DER) < 0) {
      gnutls_x509_crt_deinit(crt);
      throw std::runtime_error("the peer's certificate cannot be read");
    }
  }
  Certificate(const Certificate&) = delete;
  ~Certificate() { gnutls_x509_crt_deinit(crt); }
};

std::string common_name_of(gnutls_x509_crt_t crt) {
  std::array<char, 256> text{};
  size_t size = text.size();
  const int result =
      gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, text.data(), &size);
  return result < 0 ? std::string() : std::string(text.data(), size);
}

/// As RFC 4514 writes it, last part first, and the other way around: tools differ.
std::vector<std::string> distinguished_names_of(gnutls_x509_crt_t crt) {
  std::vector<std::string> names;
  for (const unsigned flags : {0u, unsigned{GNUTLS_X509_DN_FLAG_COMPAT}}) {
    gnutls_datum_t text{};
    if (gnutls_x509_crt_get_dn3(crt, &text, flags) < 0) continue;
    names.emplace_back(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
  }
  return names;
}

std::vector<std::string> dns_names_of(gnutls_x509_crt_t crt) {
  std::vector<std::string> names;
  for (unsigned index = 0;; ++index) {
    std::array<char, 256> text{};
    size_t size = text.size();
    const int type = gnutls_x509_crt_get_subject_alt_name(crt, index, text.data(), &size, nullptr);
    if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return names;
    if (type == GNUTLS_SAN_DNSNAME) names.emplace_back(text.data(), size);
  }
}

const gnutls_datum_t* certificate_of_peer(gnutls_session_t session) {
  if (gnutls_auth_get_type(session) != GNUTLS_CRD_CERTIFICATE) return nullptr;
  unsigned count = 0;
  const gnutls_datum_t* const chain = gnutls_certificate_get_peers(session, &count);
  return count > 0 ? chain : nullptr;
}

}  // namespace

void throw_tls_failure(std::string_view doing, int result) {
  throw std::runtime_error(fmt::format("{}: {}", doing, gnutls_strerror(result)));
}

gnutls_datum_t as_datum(const std::string& text) {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
          static_cast<unsigned>(text.size())};
}

std::shared_ptr<const TlsServer> TlsServer::make(const TlsSettings& settings) {
  return std::make_shared<GnutlsServer>(settings);
}

TlsHandles::TlsHandles() {
  const char* wrong = nullptr;
  const int result = gnutls_priority_init2(
      &priority, processor_has_aes() ? kPriorityWithAes : kPriorityWithoutAes, &wrong, 0);
  if (result < 0) throw_tls_failure(fmt::format("set TLS priorities at \"{}\"", wrong), result);
  if (gnutls_certificate_allocate_credentials(&x509) < 0) throw std::bad_alloc();
}

TlsHandles::~TlsHandles() {
  if (psk_server != nullptr) gnutls_psk_free_server_credentials(psk_server);
  if (psk_client != nullptr) gnutls_psk_free_client_credentials(psk_client);
  if (x509 != nullptr) gnutls_certificate_free_credentials(x509);
  if (priority != nullptr) gnutls_priority_deinit(priority);
}

void TlsHandles::trust(const std::string& ca, const std::string& crl) {
  const gnutls_datum_t authorities = as_datum(ca);
  const gnutls_datum_t revoked = as_datum(crl);
  int result = gnutls_certificate_set_x509_trust_mem(x509, &authorities, GNUTLS_X509_FMT_PEM);
  if (result < 0) throw_tls_failure("load ca-cert.pem", result);
  if (result == 0) throw std::runtime_error("load ca-cert.pem: there is no certificate in it");
  if (revoked.size == 0) return;
  result = gnutls_certificate_set_x509_crl_mem(x509, &revoked, GNUTLS_X509_FMT_PEM);
  if (result < 0) throw_tls_failure("load ca-crl.pem", result);
}

void TlsHandles::verify_peers() { gnutls_certificate_set_verify_function(x509, verify_peer); }

GnutlsServer::GnutlsServer(const TlsSettings& settings) : psk_(settings.psk) {
  if (gnutls_psk_allocate_server_credentials(&own_.psk_server) < 0) throw std::bad_alloc();
  if (settings.certificates) load(*settings.certificates);
  if (psk_) gnutls_psk_set_server_credentials_function(own_.psk_server, find_key);
}

void GnutlsServer::load(const TlsCertificates& certificates) {
  own_.trust(certificates.ca, certificates.crl);
  const gnutls_datum_t certificate = as_datum(certificates.certificate);
  const gnutls_datum_t key = as_datum(certificates.key);
  const int result =
      gnutls_certificate_set_x509_key_mem(own_.x509, &certificate, &key, GNUTLS_X509_FMT_PEM);
  if (result < 0) throw_tls_failure("load server-cert.pem and server-key.pem", result);
  allowed_names_ = certificates.allowed_names;
  verify_peer_ = certificates.verify_peer || !allowed_names_.empty();
  if (verify_peer_) own_.verify_peers();
}

std::unique_ptr<TlsStream> GnutlsServer::accept(io::Executor& executor,
                                                io::Stream& transport) const {
  return std::make_unique<GnutlsStream>(
      executor, transport, std::static_pointer_cast<const GnutlsServer>(shared_from_this()));
}

void GnutlsServer::equip(gnutls_session_t session) const {
  gnutls_priority_set(session, own_.priority);
  gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, own_.x509);
  if (psk_) gnutls_credentials_set(session, GNUTLS_CRD_PSK, own_.psk_server);
  gnutls_certificate_server_set_request(session,
                                        verify_peer_ ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
}

std::string GnutlsServer::user_of(gnutls_session_t session) const {
  if (const char* const user = gnutls_psk_server_get_username(session)) return user;
  const gnutls_datum_t* const der = verify_peer_ ? certificate_of_peer(session) : nullptr;
  return der == nullptr ? std::string() : common_name_of(Certificate(*der).crt);
}

bool is_valid_peer(gnutls_session_t session, const char* purpose, const std::string& host,
                   std::string_view whose, std::string& why) {
  std::array<gnutls_typed_vdata_st, 2> wanted{};
  wanted[0].type = GNUTLS_DT_KEY_PURPOSE_OID;
  wanted[0].data = reinterpret_cast<unsigned char*>(const_cast<char*>(purpose));
  wanted[1].type = GNUTLS_DT_DNS_HOSTNAME;
  wanted[1].data = reinterpret_cast<unsigned char*>(const_cast<char*>(host.c_str()));
  const unsigned count = host.empty() ? 1 : 2;
  unsigned status = 0;
  const int result = gnutls_certificate_verify_peers(session, wanted.data(), count, &status);
  if (result < 0) {
    why = fmt::format("the {}'s certificate: {}", whose, gnutls_strerror(result));
    return false;
  }
  if (status != 0) {
    gnutls_datum_t text{};
    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    why = fmt::format("the {}'s certificate: {}", whose,
                      text.data ? reinterpret_cast<const char*>(text.data) : "is not valid");
    gnutls_free(text.data);
    return false;
  }
  return true;
}

bool GnutlsServer::admits(gnutls_session_t session, std::string& why) const {
  if (!is_valid_peer(session, GNUTLS_KP_TLS_WWW_CLIENT, "", "client", why)) return false;
  const gnutls_datum_t* const der = certificate_of_peer(session);
  return der != nullptr && is_allowed(Certificate(*der).crt, why);
}

bool GnutlsServer::is_allowed(gnutls_x509_crt_t certificate, std::string& why) const {
  if (allowed_names_.empty()) return true;
  const std::vector<std::string> distinguished = distinguished_names_of(certificate);
  std::vector<std::string> names = dns_names_of(certificate);
  names.insert(names.end(), distinguished.begin(), distinguished.end());
  names.push_back(common_name_of(certificate));
  for (const std::string& allowed : allowed_names_) {
    const bool matches = std::ranges::any_of(names, [&](const std::string& name) {
      return !name.empty() && ::fnmatch(allowed.c_str(), name.c_str(), 0) == 0;
    });
    if (matches) return true;
  }
  why = fmt::format("the client's certificate is for \"{}\", which is not an allowed name",
                    distinguished.empty() ? names.back() : distinguished.front());
  return false;
}

}  // namespace nbd
