// SPDX-License-Identifier: Apache-2.0
#include "app/notify/message.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/values/time_text.h"

namespace app {
namespace {

using engine::Notification;

constexpr size_t kTextBytesMax = 4096;

struct MessageMember {
  const char* name;
  std::function<std::string(const Notification&)> value;
};

/// In the order in which a person reads them.
const std::vector<MessageMember>& members() {
  static const std::vector<MessageMember> all = {
      {"event", [](const Notification& n) { return std::string(to_text(n.event)); }},
      {"at", [](const Notification& n) { return engine::to_rfc3339(n.at); }},
      {"vm_name", &Notification::vm_name},
      {"backup_id", &Notification::backup_id},
      {"repository_id", &Notification::repository_id},
      {"text", [](const Notification& n) { return n.text.substr(0, kTextBytesMax); }},
  };
  return all;
}

std::string variable_of(std::string name) {
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return "VARVE_" + name;
}

}  // namespace

Message message_of(const Notification& notification, const std::string& host) {
  Message message;
  nlohmann::ordered_json object;
  for (const auto& [name, value] : members()) {
    const std::string text = value(notification);
    object[name] = text;
    message.environment.emplace_back(variable_of(name), text);
  }
  object["host"] = host;
  message.environment.emplace_back("VARVE_HOST", host);
  object["details"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : notification.details) {
    object["details"][name] = value.substr(0, kTextBytesMax);
  }
  // A text cut inside a character is no reason to say nothing.
  message.json = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const std::string& what = !notification.backup_id.empty() ? notification.backup_id
                            : !notification.vm_name.empty() ? notification.vm_name
                                                            : notification.repository_id;
  message.about = fmt::format("{} {}", to_text(notification.event), what);
  return message;
}

}  // namespace app
