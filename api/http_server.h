// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/api.h"
#include "api/http_tls.h"

namespace api {

struct HttpServerOptions {
  /// "127.0.0.1:8082", "[::1]:0", "localhost:8082"; port 0 takes any free one.
  std::vector<std::string> addresses;
  std::string unix_socket;  ///< path; "" for none
  /// Descriptors of sockets that listen already, TCP or Unix; the server closes them.
  std::vector<int> adopted;
  HttpTls tls = {};
  size_t event_streams_max = 64;    ///< listeners to GET /api/v1/events; beyond, 503
  size_t handler_threads_max = 64;  ///< for each of WaitsFor (routes.h)
  size_t connections_max = 1024;    ///< beyond, the one that has asked nothing longest gives way
  uint64_t body_bytes_max = 1 << 20;
  uint32_t header_bytes_max = 16 << 10;
  std::chrono::milliseconds request_timeout{15000};  ///< from a request's first byte to its last
  std::chrono::milliseconds idle_timeout{120000};    ///< between the requests of a connection
  std::chrono::milliseconds answer_timeout{14500};   ///< then 503; not for unhurried routes
  std::chrono::milliseconds event_timeout{10000};    ///< for a listener to take an event
  std::chrono::milliseconds write_timeout{30000};    ///< for a peer to take an answer
  std::chrono::milliseconds stop_grace{5000};        ///< for requests under way
};

/// HTTP/1.1 for an Api: one network thread on epoll, and handler threads because handlers block.
///
/// Instant routes (health and the like) are answered on the network thread, so that they answer
/// however busy the handlers are. Spec: docs/http-api.md, RFC 9112.
class HttpServer {
 public:
  /// Listens and serves. Throws std::system_error "listen on HOST:PORT: …", std::invalid_argument
  /// for an address that is none, or what use_tls() throws. `api` outlives this object.
  HttpServer(const Api& api, HttpServerOptions options);
  /// stop()
  ~HttpServer();

  /// What new connections do about TLS from now on; those that are open keep theirs. Throws
  /// std::runtime_error, with a sentence, when it cannot be used: then nothing has changed.
  void use_tls(const HttpTls& tls);

  /// Closes the listeners and idle connections, lets requests under way be answered within
  /// stop_grace, then closes the rest. Returns when no handler runs any more: whatever the engine
  /// makes them wait for must end. May be called again.
  void stop();

  /// The addresses really bound, in the order of the options: "127.0.0.1:8082".
  const std::vector<std::string>& addresses() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace api
