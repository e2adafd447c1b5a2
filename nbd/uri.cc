#include "nbd/uri.h"

#include <fmt/format.h>

#include <charconv>
#include <stdexcept>

#include "io/percent_encoding.h"

namespace nbd {
namespace {

std::invalid_argument malformed(std::string_view text, std::string_view cause) {
  return std::invalid_argument(
      fmt::format("\"{}\" is not an NBD URI: {}; write nbd://HOST[:PORT]/NAME or "
                  "nbd+unix:///NAME?socket=PATH",
                  text, cause));
}

void take_authority(Uri& uri, std::string_view authority, std::string_view text) {
  if (const size_t at = authority.rfind('@'); at != authority.npos) authority.remove_prefix(at + 1);
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.rfind(':');
  const bool has_port = colon != authority.npos && (bracket == authority.npos || colon > bracket);
  std::string_view host = authority.substr(0, has_port ? colon : authority.npos);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) throw malformed(text, "it names no host");
  uri.host = host;
  if (!has_port) return;
  const std::string_view digits = authority.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), uri.port);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    throw malformed(text, "its port is not a number");
  }
}

}  // namespace

bool is_uri(std::string_view text) {
  for (const std::string_view scheme : {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"}) {
    if (text.starts_with(scheme)) return true;
  }
  return false;
}

Uri parse_uri(std::string_view text) {
  if (!is_uri(text)) throw malformed(text, "it has another scheme");
  Uri uri;
  const size_t scheme_end = text.find("://");
  uri.tls = text.starts_with("nbds");
  const bool is_unix = text.substr(0, scheme_end).ends_with("+unix");
  std::string_view rest = text.substr(scheme_end + 3);
  const size_t question = rest.find('?');
  const std::string_view query =
      question == rest.npos ? std::string_view() : rest.substr(question + 1);
  rest = rest.substr(0, question);
  const size_t slash = rest.find('/');
  const std::string_view authority = rest.substr(0, slash);
  if (slash != rest.npos) uri.export_name = io::percent_decoded(rest.substr(slash + 1));
  if (!is_unix) {
    take_authority(uri, authority, text);
    return uri;
  }
  constexpr std::string_view kSocket = "socket=";
  for (std::string_view left = query; !left.empty();) {
    const std::string_view pair = left.substr(0, left.find('&'));
    if (pair.starts_with(kSocket)) uri.socket = io::percent_decoded(pair.substr(kSocket.size()));
    left.remove_prefix(std::min(pair.size() + 1, left.size()));
  }
  if (uri.socket.empty()) throw malformed(text, "it names no socket");
  return uri;
}

std::string to_text(const Uri& uri) {
  const std::string_view scheme = uri.tls ? "nbds" : "nbd";
  const std::string name = io::percent_encoded(uri.export_name, "/@");
  if (!uri.socket.empty()) {
    return fmt::format("{}+unix:///{}?socket={}", scheme, name,
                       io::percent_encoded(uri.socket, "/"));
  }
  const bool is_ipv6 = uri.host.find(':') != uri.host.npos;
  return fmt::format("{}://{}{}{}:{}/{}", scheme, is_ipv6 ? "[" : "", uri.host,
                     is_ipv6 ? "]" : "", uri.port, name);
}

}  // namespace nbd
