#include "io/memory_budget.h"

#include <algorithm>

namespace io {

void MemoryBudget::join(const std::shared_ptr<Member>& member) {
  const std::lock_guard lock(mutex_);
  std::erase_if(members_, [](const auto& known) { return known.expired(); });
  members_.push_back(member);
  members_count_ = static_cast<uint32_t>(members_.size());
}

void MemoryBudget::tell(const std::shared_ptr<Member>& member, Event event) {
  member->executor_.post([known = std::weak_ptr<Member>(member), event] {
    if (const auto alive = known.lock()) (alive.get()->*event)();
  });
}

uint64_t MemoryBudget::lease(Member& member, uint64_t least, uint64_t most) {
  const std::lock_guard lock(mutex_);
  if (free_ >= least) {
    const uint64_t granted = std::min(most, free_);
    free_ -= granted;
    return granted;
  }
  if (member.waits_) return 0;
  member.waits_ = true;
  ++waiting_count_;
  for (const auto& known : members_) {
    const auto other = known.lock();
    if (other && other.get() != &member) tell(other, &Member::give_surplus);
  }
  return 0;
}

void MemoryBudget::give_back(const Member& from, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  free_ += bytes;
  if (waiting_count_ == 0) return;
  waiting_count_ = 0;
  std::shared_ptr<Member> last;
  for (const auto& known : members_) {
    const auto member = known.lock();
    if (!member || !std::exchange(member->waits_, false)) continue;
    if (member.get() == &from) {
      last = member;
    } else {
      tell(member, &Member::more_is_free);
    }
  }
  if (last) tell(last, &Member::more_is_free);
}

}  // namespace io
