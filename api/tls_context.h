// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__SANITIZE_THREAD__)
// Asio's fences are not understood by ThreadSanitizer; here they guard nothing that it must see.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <optional>
#include <string>

#include "api/http_tls.h"

/// OpenSSL's side of TLS for HTTP: it is named here, in http_stream.h and in their sources.
namespace api {

using TlsContext = boost::asio::ssl::context;

/// TLS 1.2 and later. Throws std::runtime_error, with a sentence, for certificates or a key that
/// cannot be used.
std::shared_ptr<TlsContext> make_tls_context(const HttpTls& tls);

/// The common name of the certificate that the peer has proved to have; "" for none. Nothing when
/// it has none of the names that get in.
std::optional<std::string> admitted_peer(SSL* connection, const HttpTls& tls);

}  // namespace api
