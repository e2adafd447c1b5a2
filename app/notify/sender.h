// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "app/notify/delivery.h"
#include "app/notify/options.h"
#include "engine/values/notification.h"

namespace app {

/// What --notify-url and --notify-command do. Any thread; dropped after the engine, it delivers
/// what waits for some seconds at most (DeliveryTimes::at_stop in all).
class NotifySender final : public engine::Notifier {
 public:
  NotifySender(const NotifyOptions& options, const std::string& version);
  /// All of them stop side by side.
  ~NotifySender() override;

  void notify(engine::Notification notification) noexcept override;
  std::vector<engine::DeliveryCount> deliveries() const override;

 private:
  const std::set<engine::NotificationEvent> on_;
  const std::string host_;
  std::vector<std::unique_ptr<DeliveryQueue>> queues_;
};

}  // namespace app
