// SPDX-License-Identifier: Apache-2.0
#include "app/api_call.h"

#include <fmt/format.h>

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

}  // namespace app
