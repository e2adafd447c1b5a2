// SPDX-License-Identifier: Apache-2.0
#include "api/site_guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "api/url.h"

namespace api {
namespace {

/// "[::1]:8082", "Hub.:8082" and "192.0.2.1" as "::1", "hub" and "192.0.2.1".
std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    return in_lower_case(authority.substr(1, authority.find(']') - 1));
  }
  std::string_view host = authority.substr(0, authority.find(':'));
  if (host.ends_with('.')) host.remove_suffix(1);
  return in_lower_case(host);
}

/// The bytes of an address, the same however it is written; empty for a name.
std::vector<unsigned char> address_bytes(const std::string& host) {
  std::vector<unsigned char> bytes(sizeof(in6_addr));
  if (::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1) return bytes;
  bytes.resize(sizeof(in_addr));
  if (::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1) return bytes;
  return {};
}

bool is_same_host(const std::string& one, const std::string& other) {
  const auto bytes = address_bytes(one);
  return bytes.empty() ? one == other : bytes == address_bytes(other);
}

bool is_own_host(const Request& request, const std::vector<std::string>& names) {
  const bool over_tcp = !request.local_address.empty();
  if (!over_tcp || request.host.empty() || is_loopback_host(request.host)) return true;
  const std::string host = host_of(request.host);
  return is_same_host(host, request.local_address) ||
         std::ranges::any_of(
             names, [&](const std::string& name) { return is_same_host(host, host_of(name)); });
}

/// The page comes from where the request goes, or from an origin that a setting names.
bool is_allowed_origin(const Request& request, const std::vector<std::string>& origins) {
  if (request.origin.empty()) return true;
  for (const std::string& origin : origins) {
    if (origin == "*" || origin == request.origin) return true;
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!request.origin.starts_with(scheme)) continue;
    return in_lower_case(request.origin.substr(scheme.size())) == in_lower_case(request.host);
  }
  return false;
}

}  // namespace

bool is_loopback_host(std::string_view authority) {
  const std::string host = host_of(authority);
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  const auto bytes = address_bytes(host);
  return bytes.size() == sizeof(in_addr) ? bytes[0] == 127 : bytes == address_bytes("::1");
}

std::optional<Problem> refusal_of_site(const Request& request,
                                       const std::vector<std::string>& names,
                                       const std::vector<std::string>& origins) {
  if (!is_own_host(request, names)) {
    return Problem{
        403,
        "host_not_allowed",
        "host is not allowed",
        fmt::format("'{}' is neither loopback nor the address that was connected to", request.host),
        fmt::format("Ask 127.0.0.1 or localhost, or start varve with --http-name {}.",
                    host_of(request.host)),
        ""};
  }
  if (!is_allowed_origin(request, origins)) {
    return Problem{
        403,
        "origin_not_allowed",
        "origin is not allowed",
        fmt::format("a page of '{}' may not call '{}'", request.origin, request.host),
        fmt::format("To allow its pages, start varve with --cors-origin {}.", request.origin),
        ""};
  }
  return std::nullopt;
}

std::optional<Problem> refusal_of_content_type(const Request& request) {
  if (request.body.empty() || request.content_type.empty()) return std::nullopt;
  std::string type = in_lower_case(request.content_type);
  type.erase(std::min(type.find(';'), type.size()));
  while (type.ends_with(' ') || type.ends_with('\t')) type.pop_back();
  const bool is_json =
      type == "application/json" || (type.starts_with("application/") && type.ends_with("+json"));
  // What `curl -d` says of every body; a browser that sends a form names the page in Origin.
  const bool is_command_line =
      type == "application/x-www-form-urlencoded" && request.origin.empty();
  if (is_json || is_command_line) return std::nullopt;
  return Problem{415,
                 "unsupported_content_type",
                 "content type must be application/json",
                 fmt::format("the body is sent as '{}'", request.content_type),
                 "Send the header 'Content-Type: application/json', as curl --json does.",
                 ""};
}

}  // namespace api
