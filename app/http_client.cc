// SPDX-License-Identifier: Apache-2.0
#include "app/http_client.h"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cstdlib>
#include <stdexcept>

#include "app/options.h"
#include "io/http_url.h"

namespace app {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr uint64_t kAnswerBytesMax = 64 << 20;

constexpr std::string_view kUnix = "unix:";

http::request<http::string_body> request_for(const HttpCall& call, const std::string& target,
                                             const std::string& host, const std::string& token) {
  http::request<http::string_body> request;
  request.method_string(call.method);
  request.target(target);
  request.set(http::field::host, host);
  request.set(http::field::user_agent, "varve");
  request.set(http::field::connection, "close");
  if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  if (!call.body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = call.body;
  request.prepare_payload();
  return request;
}

/// The request and its answer over a stream that is connected; `failure` says how it went. Sets
/// asynchronous calls off, which the caller's loop runs to their end.
template <class Stream>
struct Conversation {
  Stream& stream;
  const http::request<http::string_body>& request;
  beast::flat_buffer buffer = {};
  http::response_parser<http::string_body> parser = {};
  beast::error_code failure = {};

  void begin() {
    parser.body_limit(kAnswerBytesMax);
    http::async_write(stream, request, [this](beast::error_code write_error, size_t) {
      if ((failure = write_error)) return;
      http::async_read(stream, buffer, parser,
                       [this](beast::error_code read_error, size_t) { failure = read_error; });
    });
  }
  HttpAnswer answer() {
    return {static_cast<int>(parser.get().result_int()), std::move(parser.get().body())};
  }
};

/// `places`: a sequence of endpoints of the protocol. Time-outs need the asynchronous calls.
template <class Protocol, class Places>
HttpAnswer exchange(asio::io_context& loop, const Places& places,
                    const http::request<http::string_body>& request,
                    std::chrono::seconds patience) {
  beast::basic_stream<Protocol> stream(loop);
  Conversation<beast::basic_stream<Protocol>> conversation{stream, request};
  stream.expires_after(patience);
  stream.async_connect(places, [&](beast::error_code error, const auto&) {
    if (!(conversation.failure = error)) conversation.begin();
  });
  loop.run();
  if (conversation.failure) throw beast::system_error(conversation.failure);
  return conversation.answer();
}

/// What the client trusts and proves. Throws UsageError with file and cause.
void use_certificates(asio::ssl::context& context, const std::string& directory) {
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  context.set_verify_mode(asio::ssl::verify_peer);
  if (directory.empty()) {
    context.set_default_verify_paths();
    return;
  }
  const auto use = [](const std::string& file, const auto& load) {
    beast::error_code error;
    load(file, error);
    if (error) throw UsageError(fmt::format("--tls-certificates: {}: {}", file, error.message()));
  };
  use(directory + "/ca-cert.pem",
      [&](const std::string& file, auto& error) { context.load_verify_file(file, error); });
  const std::string certificate = directory + "/client-cert.pem";
  if (::access(certificate.c_str(), F_OK) != 0) return;
  use(certificate, [&](const std::string& file, auto& error) {
    context.use_certificate_chain_file(file, error);
  });
  use(directory + "/client-key.pem", [&](const std::string& file, auto& error) {
    context.use_private_key_file(file, asio::ssl::context::pem, error);
  });
}

/// The certificate must be of an authority that is trusted, and for `host`.
HttpAnswer exchange_tls(const io::HttpUrl& url, const HttpCall& call,
                        const HttpServerAddress& server) {
  asio::io_context loop;
  asio::ssl::context context(asio::ssl::context::tls_client);
  const char* const usual = std::getenv("VARVE_TLS_CERTIFICATES");
  use_certificates(context, server.certificates.empty() && usual ? usual : server.certificates);
  beast::tcp_stream plain(loop);
  asio::ssl::stream<beast::tcp_stream&> stream(plain, context);
  const bool is_address = url.host.find_first_not_of("0123456789.") == std::string::npos ||
                          url.host.find(':') != std::string::npos;
  if (!is_address) SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host));
  const auto places = asio::ip::tcp::resolver(loop).resolve(url.host, url.port);
  const auto request =
      request_for(call, url.base_path() + call.target, url.authority(), server.token);
  Conversation<asio::ssl::stream<beast::tcp_stream&>> conversation{stream, request};
  plain.expires_after(call.patience);
  bool is_secure = false;
  plain.async_connect(places, [&](beast::error_code error, const auto&) {
    if ((conversation.failure = error)) return;
    stream.async_handshake(asio::ssl::stream_base::client, [&](beast::error_code refused) {
      if ((conversation.failure = refused)) return;
      is_secure = true;
      conversation.begin();
    });
  });
  loop.run();
  const long distrust = SSL_get_verify_result(stream.native_handle());
  if (conversation.failure && !is_secure && distrust != X509_V_OK) {
    throw ServerUnreachable(
        fmt::format("ask {}: its certificate is not trusted: {}", server.url,
                    X509_verify_cert_error_string(distrust)),
        fmt::format("--tls-certificates names the directory of its ca-cert.pem, and the "
                    "certificate must be for {}",
                    url.host));
  }
  if (conversation.failure) throw beast::system_error(conversation.failure);
  return conversation.answer();
}

HttpAnswer exchange_unix(const std::string& path, const HttpCall& call, const std::string& token) {
  asio::io_context loop;
  const std::array places = {asio::local::stream_protocol::endpoint(path)};
  const auto request = request_for(call, call.target, "localhost", token);
  return exchange<asio::local::stream_protocol>(loop, places, request, call.patience);
}

HttpAnswer exchange_tcp(const io::HttpUrl& url, const HttpCall& call, const std::string& token) {
  asio::io_context loop;
  const auto places = asio::ip::tcp::resolver(loop).resolve(url.host, url.port);
  const auto request = request_for(call, url.base_path() + call.target, url.authority(), token);
  return exchange<asio::ip::tcp>(loop, places, request, call.patience);
}

}  // namespace

HttpAnswer http_call(const HttpServerAddress& server, const HttpCall& call) {
  const bool is_local = server.url.starts_with(kUnix);
  io::HttpUrl url;
  try {
    if (!is_local) url = io::HttpUrl::parse(server.url);
    static_cast<void>(url.base_path());
  } catch (const std::invalid_argument& error) {
    throw UsageError(
        fmt::format("--server {}: {}; write http://HOST:PORT, https://HOST:PORT, or unix:/PATH of "
                    "its socket",
                    io::without_password(server.url), error.what()));
  }
  try {
    if (is_local) return exchange_unix(server.url.substr(kUnix.size()), call, server.token);
    if (url.tls) return exchange_tls(url, call, server);
    return exchange_tcp(url, call, server.token);
  } catch (const beast::system_error& failure) {
    throw ServerUnreachable(fmt::format("ask {}: {}", server.url, failure.code().message()),
                            "is `varve serve` running there? --server names another one");
  }
}

}  // namespace app
