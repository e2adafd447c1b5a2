// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/values/types.h"

/// What a person may want to be told of at once, and the seam to whatever tells them. Spec:
/// docs/monitoring.md, "Notifications".
namespace engine {

enum class NotificationEvent : uint8_t {
  completed,    ///< a backup
  failed,       ///< a backup
  cancelled,    ///< a backup
  damaged,      ///< a verification has found an image that is not what was sent
  space,        ///< a repository is down to its reserve
  unavailable,  ///< a repository cannot be used
  overdue,      ///< a VM's newest good point is older than expected
};
template <>
inline constexpr auto kWords<NotificationEvent> = words("completed", "failed", "cancelled",
                                                        "damaged", "space", "unavailable",
                                                        "overdue");

struct Notification {
  NotificationEvent event = NotificationEvent::completed;
  Time at{};
  std::string vm_name, backup_id, repository_id;  ///< "" where there is none
  std::string text;                               ///< what happened, as one sentence
  std::map<std::string, std::string> details{};   ///< what else is known, by name
};

/// What became of the notifications in one way out of varve, since it began.
struct DeliveryCount {
  std::string way;     ///< "url", "command"
  std::string result;  ///< "delivered", "failed", "dropped"
  uint64_t count = 0;
};

/// Tells somebody. Both methods return at once, from any thread, and throw nothing: no backup waits
/// for who is told of it.
class Notifier {
 public:
  virtual ~Notifier() = default;

  /// Takes over what is to be told, or drops and counts it when too much waits already.
  virtual void notify(Notification notification) noexcept = 0;
  virtual std::vector<DeliveryCount> deliveries() const = 0;
};

}  // namespace engine
