// SPDX-License-Identifier: Apache-2.0
#include "api/tls_context.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <boost/asio/buffer.hpp>
#include <stdexcept>
#include <vector>

namespace api {
namespace {

namespace asio = boost::asio;

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* of) const {
    Free(of);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using RevokedList = std::unique_ptr<X509_CRL, Freed<X509_CRL_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;

Bio reader_of(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

void use_revoked(TlsContext& context, const std::string& crl) {
  const Bio reader = reader_of(crl);
  X509_STORE* const store = SSL_CTX_get_cert_store(context.native_handle());
  bool is_understood = false;
  ERR_clear_error();
  for (;;) {  // one list for each authority, or a newer one behind an older one
    const RevokedList revoked(PEM_read_bio_X509_CRL(reader.get(), nullptr, nullptr, nullptr));
    if (!revoked) break;
    is_understood = X509_STORE_add_crl(store, revoked.get()) == 1;
    if (!is_understood) break;
  }
  const bool is_read_whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!is_understood || !is_read_whole) {
    throw std::runtime_error("ca-crl.pem: not a list of revoked certificates");
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
}

std::string distinguished_name_of(X509* certificate) {
  const Bio written(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(written.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  return text_of(written);
}

std::string common_name_of(X509* certificate) {
  X509_NAME* const subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return "";
  unsigned char* text = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (size < 0) return "";
  std::string name(reinterpret_cast<char*>(text), static_cast<size_t>(size));
  OPENSSL_free(text);
  return name;
}

std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> names{distinguished_name_of(certificate), common_name_of(certificate)};
  const Names more(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int at = 0; more && at < sk_GENERAL_NAME_num(more.get()); ++at) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(more.get(), at);
    if (name->type != GEN_DNS) continue;
    const auto* const text = ASN1_STRING_get0_data(name->d.dNSName);
    names.emplace_back(reinterpret_cast<const char*>(text),
                       static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
  }
  // A name with a zero byte in it would be compared up to there only.
  std::erase_if(names, [](const std::string& name) {
    return name.empty() || name.find('\0') != std::string::npos;
  });
  return names;
}

bool is_allowed(X509* certificate, const std::vector<std::string>& allowed) {
  for (const std::string& name : names_of(certificate)) {
    for (const std::string& pattern : allowed) {
      if (::fnmatch(pattern.c_str(), name.c_str(), 0) == 0) return true;
    }
  }
  return false;
}

/// Says which of the files cannot be used.
template <typename Use>
void use(const char* file, const Use& use) {
  boost::system::error_code error;
  use(error);
  ERR_clear_error();
  if (error) throw std::runtime_error(fmt::format("{}: {}", file, error.message()));
}

}  // namespace

std::shared_ptr<TlsContext> make_tls_context(const HttpTls& tls) {
  auto context = std::make_shared<TlsContext>(TlsContext::tls_server);
  SSL_CTX* const native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  use("server-cert.pem",
      [&](auto& error) { context->use_certificate_chain(asio::buffer(tls.certificate), error); });
  use("server-key.pem", [&](auto& error) {
    context->use_private_key(asio::buffer(tls.key), TlsContext::pem, error);
  });
  if (SSL_CTX_check_private_key(native) != 1) {
    ERR_clear_error();
    throw std::runtime_error("server-key.pem: not the key of server-cert.pem");
  }
  if (!tls.verify_peer && tls.allowed_names.empty()) return context;
  use("ca-cert.pem",
      [&](auto& error) { context->add_certificate_authority(asio::buffer(tls.ca), error); });
  if (!tls.crl.empty()) use_revoked(*context, tls.crl);
  // A session that is resumed would keep a certificate that has been revoked since.
  SSL_CTX_set_num_tickets(native, 0);
  SSL_CTX_set_options(native, SSL_OP_NO_TICKET);
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  return context;
}

std::optional<std::string> admitted_peer(SSL* connection, const HttpTls& tls) {
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  if (!certificate) return "";
  if (!tls.allowed_names.empty() && !is_allowed(certificate.get(), tls.allowed_names)) {
    return std::nullopt;
  }
  return common_name_of(certificate.get());
}

void check_http_tls(const HttpTls& tls) { make_tls_context(tls); }

}  // namespace api
