// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine/ingest/node_client.h"

namespace engine {

NodeUrl NodeUrl::parse(std::string_view text) {
  const auto wrong = [text](std::string_view why) {
    return std::invalid_argument(
        fmt::format("node URL '{}' {}; write http://HOST:PORT", text, why));
  };
  constexpr std::string_view kScheme = "http://";
  if (!text.starts_with(kScheme)) throw wrong("does not begin with http://");
  std::string_view rest = text.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  NodeUrl url;
  url.base_path = rest.substr(slash);
  while (url.base_path.ends_with('/')) url.base_path.pop_back();
  if (authority.find_first_of("@?# ") != authority.npos)
    throw wrong("has a part that is not allowed");
  if (authority.starts_with('[')) {  // an IPv6 address
    const size_t end = authority.find(']');
    if (end == authority.npos) throw wrong("lacks a ']'");
    url.host = authority.substr(1, end - 1);
    authority = authority.substr(end + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    authority = authority.substr(colon);
  }
  if (url.host.empty()) throw wrong("names no host");
  if (authority.empty()) return url;
  url.port = authority.substr(1);
  const bool digits =
      std::all_of(url.port.begin(), url.port.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (authority[0] != ':' || !digits || url.port.empty() || url.port.size() > 5 ||
      std::stoul(url.port) == 0 || std::stoul(url.port) > 65535) {
    throw wrong("has a wrong port");
  }
  return url;
}

std::string node_call_body(const NodeCall& call) {
  const nlohmann::ordered_json body = {
      {"job_id", call.job_id},
      {"vm_name", call.vm_name},
      {"vm_path", call.vm_path},
      {"vcenter_host", call.vcenter_host},
      {"vcenter_user", call.vcenter_user},
      {"vcenter_password", call.vcenter_password},
      {"nbd_targets", call.nbd_targets},
      {"backup_type", call.backup_type},
      {"previous_change_id", call.previous_change_id},
      {"nbd_host", call.nbd_host},
  };
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace engine
