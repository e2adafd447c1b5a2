// SPDX-License-Identifier: Apache-2.0
#include "app/pull/libvirt_freeze.h"

#include <fmt/format.h>

#include <utility>

namespace app {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

/// A guest must not stand still for longer.
constexpr seconds kDeadline(10);
constexpr seconds kPause(1);
/// How long the end of a pull waits for an agent that does not answer.
constexpr seconds kLastPatience(5);

}  // namespace

Freeze::Freeze(virDomainPtr domain, Warn warn) : domain_(domain), warn_(std::move(warn)) {
  virDomainAgentSetResponseTimeout(domain, kDeadline.count(), 0);
  std::string cause;
  if (virDomainFSFreeze(domain, nullptr, 0, 0) < 0) {
    cause = last_words();
    ended_ = true;
  }
  thread_ = std::thread([this] { thaw_in_time(); });
  if (!cause.empty()) tell("the guest's file systems were not frozen: " + cause);
}

Freeze::~Freeze() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    given_up_ = steady_clock::now() + kLastPatience;
  }
  changed_.notify_all();
  thread_.join();
}

void Freeze::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
}

/// Thaws first and tells then: whoever reads the warnings may be slow, or gone.
void Freeze::thaw_in_time() {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_for(lock, kDeadline, [this] { return ended_; });
  std::string cause;
  while (!thaw()) {
    if (steady_clock::now() > given_up_) {
      cause = last_words();  // of the thaw: the next call forgets it
      break;
    }
    changed_.wait_for(lock, kPause, [this] { return false; });
  }
  lock.unlock();
  if (!in_time) tell("libvirt took so long that the guest's file systems were thawed before");
  if (!cause.empty()) {
    tell(fmt::format("the guest's file systems may be frozen ({}): 'virsh domfsthaw {}'", cause,
                     virDomainGetName(domain_)));
  }
  // Libvirt keeps it with the domain; this is what it has by itself.
  virDomainAgentSetResponseTimeout(domain_, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0);
}

void Freeze::tell(const std::string& text) noexcept {
  try {
    warn_(text);
  } catch (const std::exception&) {
    // Nobody reads warnings: the backup goes on without them.
  }
}

/// The lock is free meanwhile: the call may take seconds.
bool Freeze::thaw() {
  mutex_.unlock();
  const bool done = virDomainFSThaw(domain_, nullptr, 0, 0) >= 0;
  mutex_.lock();
  return done;
}

}  // namespace app
