// SPDX-License-Identifier: Apache-2.0
#include "io/clock.h"

namespace io {

Task<void> sleep(Executor& executor, Clock& clock, Duration duration) {
  Event over(executor);
  const auto alarm = clock.call_at(clock.now() + duration, [&over] { over.set(); });
  co_await over.wait();
}

Task<bool> wait_for(Executor&, Clock& clock, Event& event, Duration patience) {
  if (event.is_set()) co_return true;
  bool timed_out = false;
  // wake() also rouses others who wait for this event, so it should have one waiter with patience.
  const auto alarm = clock.call_at(clock.now() + patience, [&] {
    timed_out = true;
    event.wake();
  });
  co_await event.wait();
  co_return event.is_set() || !timed_out;
}

}  // namespace io
