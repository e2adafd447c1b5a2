// SPDX-License-Identifier: Apache-2.0
#include "app/notify/sender.h"

#include <limits.h>
#include <unistd.h>

#include <map>
#include <utility>

#include "io/log.h"

namespace app {
namespace {

constexpr const char* kByUrl = "url";
constexpr const char* kByCommand = "command";

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

}  // namespace

NotifySender::NotifySender(const NotifyOptions& options, const std::string& version)
    : on_(options.on), host_(host_name()) {
  for (const std::string& url : options.urls) {
    queues_.push_back(
        std::make_unique<DeliveryQueue>(kByUrl, make_webhook(url, "varve/" + version)));
  }
  for (const std::string& command : options.commands) {
    // Who has been run may have told already.
    queues_.push_back(std::make_unique<DeliveryQueue>(kByCommand, make_command(command),
                                                      DeliveryTimes{.tries = 1}));
  }
}

NotifySender::~NotifySender() {
  for (const auto& queue : queues_) queue->begin_stop();
}

void NotifySender::notify(engine::Notification notification) noexcept {
  if (queues_.empty() || !on_.contains(notification.event)) return;
  try {
    const auto message = std::make_shared<const Message>(message_of(notification, host_));
    for (const auto& queue : queues_) queue->add(message);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "notify: {}", failure.what());
  }
}

std::vector<engine::DeliveryCount> NotifySender::deliveries() const {
  std::map<std::string, DeliveryQueue::Counts> by_way = {{kByCommand, {}}, {kByUrl, {}}};
  for (const auto& queue : queues_) {
    const DeliveryQueue::Counts counts = queue->counts();
    DeliveryQueue::Counts& sum = by_way[queue->word()];
    sum.delivered += counts.delivered;
    sum.failed += counts.failed;
    sum.dropped += counts.dropped;
  }
  std::vector<engine::DeliveryCount> deliveries;
  for (const auto& [way, counts] : by_way) {
    deliveries.push_back({way, "delivered", counts.delivered});
    deliveries.push_back({way, "failed", counts.failed});
    deliveries.push_back({way, "dropped", counts.dropped});
  }
  return deliveries;
}

}  // namespace app
