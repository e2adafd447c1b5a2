// SPDX-License-Identifier: Apache-2.0
#include "io/memory_budget.h"

#include <algorithm>
#include <cassert>

namespace io {

void MemoryBudget::join(const std::shared_ptr<Member>& member) {
  const std::lock_guard lock(mutex_);
  std::erase_if(members_, [](const auto& known) { return known.expired(); });
  members_.push_back(member);
  members_count_ = static_cast<uint32_t>(members_.size());
}

Job MemoryBudget::notice_of(Member& member, Event event) {
  return [known = member.weak_from_this(), event] {
    if (const auto alive = known.lock()) (alive.get()->*event)();
  };
}

uint64_t MemoryBudget::lease(Member& member, uint64_t least, uint64_t most) {
  assert(least > 0 && least <= most);
  const std::lock_guard lock(mutex_);
  if (free_ >= least) {
    const uint64_t granted = std::min(most, free_);
    free_ -= granted;
    return granted;
  }
  if (member.wakeup_) return 0;
  Job wakeup = notice_of(member, &Member::more_is_free);
  for (const auto& known : members_) {
    const auto other = known.lock();
    if (other && other.get() != &member) {
      other->executor_.post(notice_of(*other, &Member::give_surplus));
    }
  }
  member.wakeup_ = std::move(wakeup);
  ++waiting_count_;
  return 0;
}

void MemoryBudget::give_back(const Member& from, uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  assert(bytes <= total_ - free_ && "the leases never exceed the total, and end once");
  free_ += bytes;
  if (waiting_count_ == 0) return;
  waiting_count_ = 0;
  std::shared_ptr<Member> last;
  for (const auto& known : members_) {
    const auto member = known.lock();
    if (!member || !member->wakeup_) continue;
    if (member.get() == &from) {
      last = member;
    } else {
      wake(*member);
    }
  }
  if (last) wake(*last);
}

void MemoryBudget::wake(Member& member) noexcept {
  assert(member.wakeup_ && "only a pool that waits is woken");
  Job wakeup = *std::exchange(member.wakeup_, std::nullopt);
  member.executor_.post(std::move(wakeup));
}

}  // namespace io
