#include "app/http_client.h"

#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
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

HttpAnswer exchange(const engine::NodeUrl& url, const HttpCall& call, const std::string& token) {
  asio::io_context loop;
  beast::tcp_stream stream(loop);
  http::request<http::string_body> request;
  request.method_string(call.method);
  request.target(url.base_path + call.target);
  request.set(http::field::host, url.host + ":" + url.port);
  request.set(http::field::user_agent, "varve");
  request.set(http::field::connection, "close");
  if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  if (!call.body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = call.body;
  request.prepare_payload();
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kAnswerBytesMax);
  const auto found = asio::ip::tcp::resolver(loop).resolve(url.host, url.port);

  // Time-outs need the asynchronous calls; one chain of them, run to its end.
  beast::error_code failure;
  stream.expires_after(call.patience);
  stream.async_connect(found, [&](beast::error_code error, const auto&) {
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

}  // namespace

HttpAnswer http_call(const HttpServerAddress& server, const HttpCall& call) {
  engine::NodeUrl url;
  try {
    url = engine::NodeUrl::parse(server.url);
  } catch (const std::invalid_argument& error) {
    throw UsageError(fmt::format("--server {}: {}", server.url, error.what()));
  }
  try {
    return exchange(url, call, server.token);
  } catch (const beast::system_error& failure) {
    throw std::runtime_error(
        fmt::format("ask {}: {}; is `varve serve` running there? --server names another one",
                    server.url, failure.code().message()));
  }
}

}  // namespace app
