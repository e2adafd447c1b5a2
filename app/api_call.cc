#include "app/api_call.h"

#include <fmt/format.h>

namespace app {

nlohmann::json api_call(const HttpServerAddress& server, HttpCall call) {
  call.target = "/api/v1" + call.target;
  const HttpAnswer answer = http_call(server, call);
  nlohmann::json said = nlohmann::json::parse(answer.body, nullptr, false);
  if (answer.status >= 200 && answer.status < 300 && said.is_object()) return said;
  const auto word = [&said](const char* name) {
    return said.is_object() ? said.value(name, std::string()) : std::string();
  };
  std::string text = fmt::format("{}: {} {}", server.url, answer.status, word("error"));
  for (const char* more : {"details", "hint"}) {
    if (!word(more).empty()) text += (*more == 'd' ? ": " : ". ") + word(more);
  }
  throw ServerRefused(answer.status, word("code"), text);
}

}  // namespace app
