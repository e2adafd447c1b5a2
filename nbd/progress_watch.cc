// SPDX-License-Identifier: Apache-2.0
#include "nbd/progress_watch.h"

namespace nbd {

void ProgressWatch::tick() noexcept try {
  constexpr uint32_t kTicks = 4;
  const Inbox& inbox = channel_.inbox();
  const Outbox& outbox = channel_.outbox();
  const bool receiving = inbox.waits_inside_message() && inbox.received() == received_;
  const bool sending = outbox.sending() && outbox.sent() == sent_;
  still_ticks_ = receiving || sending ? still_ticks_ + 1 : 0;
  received_ = inbox.received();
  sent_ = outbox.sent();
  if (still_ticks_ > kTicks) {
    channel_.end_abnormally(sending ? "the client does not read its replies"
                                    : "the client stopped inside a request");
    channel_.abort();
    return;
  }
  const io::Clock& clock = channel_.runtime().clock;
  alarm_ = channel_.runtime().clock.call_at(clock.now() + stall_ / kTicks, [this] { tick(); });
} catch (...) {
  channel_.lose_client(std::current_exception());
}

}  // namespace nbd
