// SPDX-License-Identifier: Apache-2.0
#include "app/api_call.h"

#include <fmt/format.h>

#include "app/exit_status.h"
#include "io/percent_encoding.h"

namespace app {

nlohmann::json api_call(const HttpServerAddress& server, HttpCall call) {
  call.target = "/api/v1" + call.target;
  const HttpAnswer answer = http_call(server, call);
  nlohmann::json said = nlohmann::json::parse(answer.body, nullptr, false);
  if (answer.status >= 200 && answer.status < 300 && said.is_object()) return said;
  const auto word = [&said](const char* name) {
    const auto found = said.is_object() ? said.find(name) : said.end();
    return found != said.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  std::string text = fmt::format("{}: {} {}", server.url, answer.status, word("error"));
  if (!word("details").empty()) text += ": " + word("details");
  throw ServerRefused(answer.status, word("code"), text, word("hint"));
}

void refuse_unknown_point(const HttpServerAddress& server, const std::string& name) {
  const size_t at = name.rfind('@');
  if (at == std::string::npos || at == 0) return;
  const std::string vm_name = name.substr(0, at);
  try {
    api_call(server, {.target = "/vm-contexts/" + io::percent_encoded(vm_name)});
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
    return;
  }
  throw CommandFailed(
      kNotFound,
      fmt::format("VM '{0}' has no point '{1}': a point is latest, a backup id, or a time "
                  "as 2026-11-30T15:00:00Z; `varve list {0}` shows them",
                  vm_name, name.substr(at + 1)));
}

}  // namespace app
