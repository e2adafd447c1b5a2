// SPDX-License-Identifier: Apache-2.0
#include "app/nbd_connection.h"

#include <fmt/format.h>
#include <netdb.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "io/outcome.h"
#include "io/socket.h"

namespace app {
namespace {

/// The first address of a host as a number, which is what a ring connects to. Blocks.
std::string numeric_host(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) throw std::runtime_error(fmt::format("{}: {}", host, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  char text[NI_MAXHOST] = {};
  ::getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

/// A server that has too many connections lets the kernel accept more, and says nothing.
constexpr io::Duration kFirstPatience = std::chrono::seconds(60),
                       kNextPatience = std::chrono::seconds(5);

io::Task<std::unique_ptr<nbd::Client>> connect(io::Ring& ring, io::Runtime runtime, nbd::Uri uri,
                                               std::shared_ptr<const nbd::TlsClient> tls,
                                               std::vector<std::string> contexts,
                                               io::Duration patience) {
  std::unique_ptr<io::Socket> socket;
  if (uri.socket.empty()) {
    socket = co_await io::connect_tcp(ring, numeric_host(uri.host), uri.port);
  } else {
    socket = co_await io::connect_unix(ring, uri.socket);
  }
  nbd::ClientOptions options;
  options.tls = std::move(tls);
  options.tls_host = uri.tls_host.empty() ? uri.host : uri.tls_host;
  options.export_name = uri.export_name;
  options.contexts = std::move(contexts);
  // The client owns the socket until it is open or has failed, and the alarm is over by then.
  io::Socket* const greeted = socket.get();
  bool late = false;
  const auto alarm = runtime.clock.call_at(runtime.clock.now() + patience, [&late, greeted] {
    late = true;
    greeted->abort();
  });
  auto opened = co_await io::attempt(
      [&] { return nbd::Client::open(runtime, std::move(socket), std::move(options)); });
  if (!late) co_return opened.take();
  if (!opened.failed()) {
    const auto client = opened.take();
    co_await client->close();
  }
  throw std::runtime_error("the server accepts the connection and does not greet");
}

/// What to do about a certificate that is not trusted; "" for other failures.
std::string trust_hint(const std::string& failure, const nbd::Uri& uri) {
  if (failure.find("the server's certificate: ") == std::string::npos) return "";
  return fmt::format(
      "{}--tls-certificates or $VARVE_TLS_CERTIFICATES names the directory of its ca-cert.pem, and "
      "the certificate must be for {}",
      failure.ends_with(' ') ? "" : " ", uri.tls_host.empty() ? uri.host : uri.tls_host);
}

}  // namespace

io::Task<std::vector<std::unique_ptr<nbd::Client>>> connect_all(io::Ring& ring, io::Runtime runtime,
                                                                nbd::Uri uri, uint32_t count,
                                                                TlsClientFiles files,
                                                                std::vector<std::string> contexts) {
  const std::string where =
      uri.socket.empty() ? fmt::format("{}:{}", uri.host, uri.port) : uri.socket;
  std::shared_ptr<const nbd::TlsClient> tls;
  if (uri.tls) {
    const bool names_own = !uri.tls_certificates.empty() || !uri.tls_psk.empty();
    if (names_own) files = {uri.tls_certificates, uri.tls_psk, ""};
    const char* const usual = std::getenv("VARVE_TLS_CERTIFICATES");
    if (files.certificates.empty() && files.psk.empty() && usual) files.certificates = usual;
    if (!uri.user.empty()) files.user = uri.user;
    tls = load_tls_client(files);
  }
  std::vector<std::unique_ptr<nbd::Client>> clients;
  std::string failure;
  while (clients.size() < count) {
    try {
      const io::Duration patience = clients.empty() ? kFirstPatience : kNextPatience;
      clients.push_back(co_await connect(ring, runtime, uri, tls, contexts, patience));
    } catch (const std::exception& error) {
      failure = error.what();
      break;
    }
    if (!clients.front()->info().has(nbd::kCanMultiConn)) break;
  }
  // A server that takes some of them and no more is used with those.
  if (clients.empty()) {
    throw std::runtime_error(fmt::format("{}: {}{}", where, failure, trust_hint(failure, uri)));
  }
  co_return clients;
}

}  // namespace app
