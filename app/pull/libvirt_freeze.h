// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <libvirt/libvirt.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "app/pull/libvirt_domain.h"

namespace app {

/// Keeps a guest's file systems still from its construction to end(), by the agent in the guest.
///
/// A frozen file system stops whoever writes, so the thaw comes in any case: after 10 s even while
/// the caller waits for libvirt, and again and again where the agent does not answer. That goes for
/// a freeze that failed, too: an agent that was only too late still carries it out. What could not
/// be done is said by `warn`, from a thread of its own, after the thaw. The destructor waits for
/// the thaw, and some seconds when it keeps failing. The domain outlives this object.
class Freeze {
 public:
  Freeze(virDomainPtr domain, Warn warn);
  ~Freeze();
  Freeze(const Freeze&) = delete;

  /// The instant is over. Does not wait.
  void end();

 private:
  void thaw_in_time();
  bool thaw();
  void tell(const std::string& text) noexcept;

  const virDomainPtr domain_;
  const Warn warn_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::chrono::steady_clock::time_point given_up_ = std::chrono::steady_clock::time_point::max();
  std::thread thread_;
};

}  // namespace app
