// SPDX-License-Identifier: Apache-2.0
#include "app/http_access.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "app/token_file.h"

namespace app {
namespace {

api::HttpTlsMode http_tls_mode(const ServeOptions& options) {
  const bool has_certificates = !options.tls.certificates.empty();
  return options.http_tls.value_or(has_certificates ? api::HttpTlsMode::on : api::HttpTlsMode::off);
}

}  // namespace

bool has_tokens(const ServeOptions& options) {
  return !options.api_token.empty() || TokenFile(*options.tokens).is_in_use();
}

void check_http_access(const ServeOptions& options, const std::vector<HttpListener>& listeners) {
  const api::HttpTlsMode mode = http_tls_mode(options);
  if (mode != api::HttpTlsMode::off && options.tls.certificates.empty()) {
    throw UsageError("--http-tls: TLS of HTTP needs certificates; give --tls-certificates DIR");
  }
  const bool tokens = has_tokens(options);
  for (const HttpListener& listener : listeners) {
    if (listener.is_local) continue;
    if (!tokens && !options.allow_no_token) {
      throw UsageError(
          fmt::format("{}: this is not a loopback address, and whoever reaches it could start and "
                      "delete backups; make a token with `varve token add` or give "
                      "--api-token-file, or say --allow-no-token if that is meant",
                      listener.option));
    }
    if (mode == api::HttpTlsMode::off && !options.allow_plain_http) {
      throw UsageError(
          fmt::format("{}: this is not a loopback address, and tokens would cross the network "
                      "unencrypted; give --tls-certificates DIR, or say --allow-plain-http if that "
                      "is meant",
                      listener.option));
    }
  }
}

api::HttpTls load_http_tls(const ServeOptions& options) {
  api::HttpTls tls;
  tls.mode = http_tls_mode(options);
  tls.plain_beyond_loopback = options.allow_plain_http;
  if (tls.mode == api::HttpTlsMode::off) return tls;
  nbd::TlsCertificates files = read_server_certificates(options.tls);
  tls.ca = std::move(files.ca);
  tls.certificate = std::move(files.certificate);
  tls.key = std::move(files.key);
  tls.crl = std::move(files.crl);
  tls.verify_peer = files.verify_peer;
  tls.allowed_names = std::move(files.allowed_names);
  try {
    api::check_http_tls(tls);
  } catch (const std::runtime_error& failure) {
    throw UsageError(fmt::format("--tls-certificates, for HTTP: {}", failure.what()));
  }
  return tls;
}

}  // namespace app
