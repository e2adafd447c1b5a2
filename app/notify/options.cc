// SPDX-License-Identifier: Apache-2.0
#include "app/notify/options.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/options.h"

namespace app {
namespace {

using engine::NotificationEvent;

bool is_port(std::string_view text) {
  return !text.empty() && text.size() <= 5 &&
         text.find_first_not_of("0123456789") == std::string_view::npos &&
         std::stoul(std::string(text)) >= 1 && std::stoul(std::string(text)) <= UINT16_MAX;
}

UsageError not_a_webhook(std::string_view why) {
  return UsageError(
      fmt::format("{}; write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH", why));
}

}  // namespace

std::set<NotificationEvent> parse_events(std::string_view text) {
  std::set<NotificationEvent> events;
  if (text == "none") return events;
  const auto& words = engine::kWords<NotificationEvent>;
  if (text == "all") {
    for (const std::string_view word : words) {
      events.insert(*engine::from_text<NotificationEvent>(word));
    }
    return events;
  }
  while (true) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view word = text.substr(0, end);
    const auto event = engine::from_text<NotificationEvent>(word);
    if (!event) {
      throw UsageError(
          fmt::format("\"{}\" is not one of {}, all, none", word, fmt::join(words, ", ")));
    }
    events.insert(*event);
    if (end == text.size()) return events;
    text.remove_prefix(end + 1);
  }
}

std::string events_text(const std::set<NotificationEvent>& events) {
  std::string text;
  for (const NotificationEvent event : events) {
    text += fmt::format("{}{}", text.empty() ? "" : ",", engine::to_text(event));
  }
  return text.empty() ? "none" : text;
}

std::string WebhookUrl::shown() const {
  return fmt::format("{}://{}:{}", tls ? "https" : "http", host, port);
}

WebhookUrl parse_webhook_url(std::string_view text) {
  constexpr std::string_view kPlain = "http://", kTls = "https://";
  WebhookUrl url;
  url.tls = text.starts_with(kTls);
  if (!url.tls && !text.starts_with(kPlain)) throw not_a_webhook("neither http:// nor https://");
  if (std::ranges::any_of(text, [](unsigned char c) { return c <= ' ' || c == 0x7f; })) {
    throw not_a_webhook("a blank or control character");
  }
  std::string_view rest = text.substr(url.tls ? kTls.size() : kPlain.size());
  rest = rest.substr(0, rest.find('#'));
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  std::string_view authority = rest.substr(0, end);
  if (end < rest.size()) url.target = rest.substr(end);
  if (url.target.starts_with('?')) url.target.insert(0, "/");
  if (authority.find('@') != authority.npos) throw not_a_webhook("a user name before the host");
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  if (bracket == authority.npos) throw not_a_webhook("'[' without ']'");
  const size_t colon = authority.find(':', bracket);
  const bool has_port = colon != authority.npos;
  url.host = authority.substr(0, std::min(colon, authority.size()));
  if (bracket > 0) url.host = authority.substr(1, bracket - 1);
  url.port = has_port ? std::string(authority.substr(colon + 1)) : url.tls ? "443" : "80";
  if (url.host.empty()) throw not_a_webhook("no host");
  if (!is_port(url.port)) throw not_a_webhook(fmt::format("\"{}\" is no port", url.port));
  return url;
}

}  // namespace app
