// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/values/notification.h"
#include "io/http_url.h"

namespace app {

/// Whom `varve serve` tells of what: docs/monitoring.md, "Notifications".
struct NotifyOptions {
  std::vector<std::string> urls;      ///< each gets a POST of JSON
  std::vector<std::string> commands;  ///< each is run by /bin/sh
  std::set<engine::NotificationEvent> on = {
      engine::NotificationEvent::failed, engine::NotificationEvent::damaged,
      engine::NotificationEvent::space, engine::NotificationEvent::unavailable,
      engine::NotificationEvent::overdue};
};

/// "failed,overdue", "all" or "none". Throws UsageError.
std::set<engine::NotificationEvent> parse_events(std::string_view text);
/// The same as a text that parse_events() reads.
std::string events_text(const std::set<engine::NotificationEvent>& events);

/// Whom to tell by HTTP. Throws UsageError.
io::HttpUrl parse_webhook_url(std::string_view text);
/// The public part, for logs: "https://hooks.example.com:443".
std::string shown_url(const io::HttpUrl& url);

}  // namespace app
