// SPDX-License-Identifier: Apache-2.0
#include "app/notify/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "app/options.h"

namespace app {
namespace {

using engine::NotificationEvent;

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

std::string shown_url(const io::HttpUrl& url) {
  return fmt::format("{}://{}:{}", url.tls ? "https" : "http", url.host, url.port);
}

io::HttpUrl parse_webhook_url(std::string_view text) {
  try {
    return io::HttpUrl::parse(text);
  } catch (const std::invalid_argument& error) {
    throw UsageError(
        fmt::format("{}; write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH", error.what()));
  }
}

}  // namespace app
