// SPDX-License-Identifier: Apache-2.0
#include "io/http_url.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <stdexcept>

namespace io {
namespace {

bool is_port(std::string_view text) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  return error == std::errc() && end == text.end() && number > 0 && text.size() <= 5;
}

}  // namespace

HttpUrl HttpUrl::parse(std::string_view text) {
  constexpr std::string_view kPlain = "http://", kTls = "https://";
  HttpUrl url;
  url.tls = text.starts_with(kTls);
  if (!url.tls && !text.starts_with(kPlain)) {
    throw std::invalid_argument("it begins with neither http:// nor https://");
  }
  if (std::ranges::any_of(text, [](unsigned char c) { return c <= ' ' || c == 0x7f; })) {
    throw std::invalid_argument("it has a blank or a control character");
  }
  std::string_view rest = text.substr(url.tls ? kTls.size() : kPlain.size());
  rest = rest.substr(0, rest.find('#'));
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  const std::string_view authority = rest.substr(0, end);
  if (end < rest.size()) url.target = rest.substr(end);
  if (url.target.starts_with('?')) url.target.insert(0, "/");
  if (authority.find('@') != authority.npos) {
    throw std::invalid_argument("it has a user name before the host");
  }
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  if (bracket == authority.npos) throw std::invalid_argument("it has '[' without ']'");
  const size_t colon = std::min(authority.find(':', bracket), authority.size());
  url.host = bracket > 0 ? authority.substr(1, bracket - 1) : authority.substr(0, colon);
  if (url.host.empty()) throw std::invalid_argument("it names no host");
  if (bracket > 0 && bracket + 1 != colon) throw std::invalid_argument("it has text after ']'");
  const std::string_view port = authority.substr(colon);
  if (port.empty()) {
    url.port = url.tls ? "443" : "80";
  } else {
    url.port = port.substr(1);
  }
  if (!is_port(url.port)) throw std::invalid_argument("its port is not a number from 1 to 65535");
  return url;
}

std::string HttpUrl::base_path() const {
  if (target.find('?') != target.npos) throw std::invalid_argument("it has a query");
  return target.substr(0, target.find_last_not_of('/') + 1);
}

std::string HttpUrl::authority() const {
  const std::string name = host.find(':') == host.npos ? host : "[" + host + "]";
  return port == (tls ? "443" : "80") ? name : name + ":" + port;
}

std::string without_password(std::string_view address) {
  constexpr std::string_view kBegin = "://";
  const size_t scheme = address.find(kBegin);
  if (scheme == address.npos) return std::string(address);
  const size_t begin = scheme + kBegin.size();
  const std::string_view authority =
      address.substr(begin, address.find_first_of("/?#", begin) - begin);
  const size_t at = authority.rfind('@'), colon = authority.find(':');
  if (at == authority.npos || colon > at) return std::string(address);
  return std::string(address.substr(0, begin + colon + 1)) + "\u2026" +
         std::string(address.substr(begin + at));
}

}  // namespace io
