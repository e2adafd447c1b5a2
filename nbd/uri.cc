// SPDX-License-Identifier: Apache-2.0
#include "nbd/uri.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
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

/// Unknown parameters are ignored, as the specification wants it.
void take_query(Uri& uri, std::string_view query) {
  const std::array<std::pair<std::string_view, std::string*>, 4> known = {
      {{"socket=", &uri.socket},
       {"tls-certificates=", &uri.tls_certificates},
       {"tls-psk-file=", &uri.tls_psk},
       {"tls-hostname=", &uri.tls_host}}};
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    for (const auto& [name, value] : known) {
      if (pair.starts_with(name)) *value = io::percent_decoded(pair.substr(name.size()));
    }
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
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
  if (question != rest.npos) take_query(uri, rest.substr(question + 1));
  rest = rest.substr(0, question);
  const size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  if (slash != rest.npos) uri.export_name = io::percent_decoded(rest.substr(slash + 1));
  if (const size_t at = authority.rfind('@'); at != authority.npos) {
    uri.user = io::percent_decoded(authority.substr(0, at));
    authority.remove_prefix(at + 1);
  }
  if (!is_unix) {
    take_authority(uri, authority, text);
  } else if (uri.socket.empty()) {
    throw malformed(text, "it names no socket");
  }
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
  return fmt::format("{}://{}{}{}:{}/{}", scheme, is_ipv6 ? "[" : "", uri.host, is_ipv6 ? "]" : "",
                     uri.port, name);
}

}  // namespace nbd
