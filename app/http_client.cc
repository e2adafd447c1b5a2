#include "app/http_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <stdexcept>

#include "app/options.h"
#include "engine/ingest/node_client.h"

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

/// `places`: a sequence of endpoints of the protocol.
template <class Protocol, class Places>
HttpAnswer exchange(asio::io_context& loop, const Places& places,
                    const http::request<http::string_body>& request,
                    std::chrono::seconds patience) {
  beast::basic_stream<Protocol> stream(loop);
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kAnswerBytesMax);

  // Time-outs need the asynchronous calls; one chain of them, run to its end.
  beast::error_code failure;
  stream.expires_after(patience);
  stream.async_connect(places, [&](beast::error_code error, const auto&) {
    if ((failure = error)) return;
    http::async_write(stream, request, [&](beast::error_code write_error, size_t) {
      if ((failure = write_error)) return;
      http::async_read(stream, buffer, parser,
                       [&](beast::error_code read_error, size_t) { failure = read_error; });
    });
  });
  loop.run();
  if (failure) throw beast::system_error(failure);
  return {static_cast<int>(parser.get().result_int()), std::move(parser.get().body())};
}

HttpAnswer exchange_unix(const std::string& path, const HttpCall& call, const std::string& token) {
  asio::io_context loop;
  const std::array places = {asio::local::stream_protocol::endpoint(path)};
  const auto request = request_for(call, call.target, "localhost", token);
  return exchange<asio::local::stream_protocol>(loop, places, request, call.patience);
}

HttpAnswer exchange_tcp(const engine::NodeUrl& url, const HttpCall& call,
                        const std::string& token) {
  asio::io_context loop;
  const auto places = asio::ip::tcp::resolver(loop).resolve(url.host, url.port);
  const auto request =
      request_for(call, url.base_path + call.target, url.host + ":" + url.port, token);
  return exchange<asio::ip::tcp>(loop, places, request, call.patience);
}

}  // namespace

HttpAnswer http_call(const HttpServerAddress& server, const HttpCall& call) {
  const bool is_local = server.url.starts_with(kUnix);
  engine::NodeUrl url;
  try {
    if (!is_local) url = engine::NodeUrl::parse(server.url);
  } catch (const std::invalid_argument& error) {
    throw UsageError(
        fmt::format("--server {}: {}, or unix:/PATH of its socket", server.url, error.what()));
  }
  try {
    if (is_local) return exchange_unix(server.url.substr(kUnix.size()), call, server.token);
    return exchange_tcp(url, call, server.token);
  } catch (const beast::system_error& failure) {
    throw ServerUnreachable(fmt::format("ask {}: {}", server.url, failure.code().message()),
                            "is `varve serve` running there? --server names another one");
  }
}

}  // namespace app
