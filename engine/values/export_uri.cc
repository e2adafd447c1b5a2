#include "engine/values/export_uri.h"

#include <fmt/format.h>

#include <cctype>
#include <string_view>

namespace engine {
namespace {

std::string_view scheme(nbd::TlsMode tls) { return tls == nbd::TlsMode::off ? "nbd" : "nbds"; }

/// Percent-encoded, except for what a path in a URI may have; the names of jobs' exports need none.
std::string encoded(std::string_view text) {
  constexpr std::string_view kPlain = "/-._~@";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = (byte < 128 && std::isalnum(byte) != 0) || kPlain.find(c) != kPlain.npos;
    encoded += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return encoded;
}

std::string uri(nbd::TlsMode tls, const std::string& host, uint16_t port, const std::string& name) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}/{}", scheme(tls), is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "",
                     port, encoded(name));
}

std::string socket_uri(nbd::TlsMode tls, const std::string& socket, const std::string& name) {
  return fmt::format("{}+unix:///{}?socket={}", scheme(tls), encoded(name), encoded(socket));
}

}  // namespace

std::vector<std::string> export_uris(const EngineOptions& options, const std::string& name,
                                     uint16_t port) {
  std::vector<std::string> uris;
  if (port != 0) uris.push_back(uri(options.ports_tls, options.advertised_host, port, name));
  if (options.nbd_port != 0) {
    uris.push_back(uri(options.main_tls, options.advertised_host, options.nbd_port, name));
  }
  if (!options.nbd_socket.empty()) {
    uris.push_back(socket_uri(options.socket_tls, options.nbd_socket, name));
  }
  return uris;
}

}  // namespace engine
