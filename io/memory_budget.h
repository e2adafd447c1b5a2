// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "io/executor.h"

namespace io {

/// The bytes that all buffer pools of a process may hand out together (X5).
///
/// A pool leases bytes here and grants them to its own thread without asking again. While some pool
/// waits for more, the others give back what they do not use. Invariant: the leases never exceed
/// the total. Any thread.
class MemoryBudget {
 public:
  /// A pool as the budget sees it. Both calls come on the pool's own thread, from its executor.
  class Member : public std::enable_shared_from_this<Member> {
   public:
    explicit Member(Executor& executor) : executor_(executor) {}
    virtual ~Member() = default;
    /// There may be bytes to lease now.
    virtual void more_is_free() noexcept = 0;
    /// Another pool waits.
    virtual void give_surplus() noexcept = 0;

   private:
    friend class MemoryBudget;
    Executor& executor_;
    std::optional<Job> wakeup_;  // guarded by the budget's mutex; while it waits, else nothing
  };

  explicit MemoryBudget(uint64_t bytes) : total_(bytes), free_(bytes) {}

  /// Members hear of events until the last reference to them goes.
  void join(const std::shared_ptr<Member>& member);

  /// Leases as much as is free, `least` to `most` bytes; otherwise nothing, and `member` waits.
  /// Throws, without either, when there is no memory to notify the others.
  uint64_t lease(Member& member, uint64_t least, uint64_t most);
  /// Whoever waits may try again, `from` last.
  void give_back(const Member& from, uint64_t bytes) noexcept;

  uint64_t total() const { return total_; }
  /// What each pool has when all want the same.
  uint64_t fair_share() const { return total_ / members_count_.load(std::memory_order_relaxed); }
  /// A hint, without the lock.
  bool has_waiting() const { return waiting_count_.load(std::memory_order_relaxed) > 0; }

 private:
  using Event = void (Member::*)() noexcept;
  static Job notice_of(Member& member, Event event);
  static void wake(Member& member) noexcept;

  const uint64_t total_;
  std::mutex mutex_;
  uint64_t free_;                               // guarded by mutex_
  std::vector<std::weak_ptr<Member>> members_;  // guarded by mutex_
  std::atomic<uint32_t> members_count_ = 1, waiting_count_ = 0;
};

}  // namespace io
