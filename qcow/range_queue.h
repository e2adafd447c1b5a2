#pragma once

#include <cassert>
#include <coroutine>
#include <cstdint>
#include <list>
#include <utility>

#include "io/executor.h"

namespace qcow {

/// Lets operations that touch the same guest clusters happen one after the other, in the order in
/// which they came (WP4).
///
/// Invariant: an operation has entered exactly when every earlier one that overlaps it, and of
/// which at least one of the two is exclusive, has left. Nothing that an operation does while it
/// is inside may wait for a commit, because a commit itself enters clusters.
/// Belongs to one ring thread. Cost grows with the operations under way, which are few.
class RangeQueue {
 public:
  enum class Access : uint8_t { shared, exclusive };

  explicit RangeQueue(io::Executor& executor) : executor_(executor) {}
  RangeQueue(const RangeQueue&) = delete;
  ~RangeQueue();

 private:
  struct Entry {
    uint64_t first = 0;  // cluster
    uint64_t last = 0;   // cluster, inclusive
    Access access = Access::shared;
    uint32_t blockers = 0;  // earlier entries that must leave first
    io::Waiter waiter{};    // its handle is null while nobody waits

    bool conflicts_with(const Entry& other) const {
      return first <= other.last && other.first <= last &&
             (access == Access::exclusive || other.access == Access::exclusive);
    }
  };
  using Place = std::list<Entry>::iterator;

 public:
  /// The right to touch the clusters; leaves when destroyed.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept
        : queue_(std::exchange(other.queue_, nullptr)), place_(other.place_) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        queue_ = std::exchange(other.queue_, nullptr);
        place_ = other.place_;
      }
      return *this;
    }
    ~Hold() { release(); }
    void release() {
      if (queue_) std::exchange(queue_, nullptr)->leave(place_);
    }

   private:
    friend class RangeQueue;
    Hold(RangeQueue& queue, Place place) : queue_(&queue), place_(place) {}
    RangeQueue* queue_ = nullptr;
    Place place_;
  };

  /// Only enter() itself can fail, for lack of memory, and then nothing has changed.
  /// `Hold hold = co_await queue.enter(first, count, access)`; count ≥ 1.
  auto enter(uint64_t first, uint64_t count, Access access) {
    struct Awaiter {
      RangeQueue& queue;
      Place place;
      bool await_ready() const noexcept { return place->blockers == 0; }
      void await_suspend(std::coroutine_handle<> waiter) const noexcept {
        place->waiter.handle = waiter;
      }
      Hold await_resume() const noexcept { return Hold(queue, place); }
    };
    return Awaiter{*this, arrive(first, first + (count - 1), access)};
  }

  /// The same, exclusive, once: needs no memory.
  auto enter_last(uint64_t first, uint64_t count) noexcept {
    assert(!last_.empty() && "once");
    spare_.splice(spare_.begin(), last_);
    return enter(first, count, Access::exclusive);
  }

  /// Operations inside and waiting.
  size_t size() const { return entries_.size(); }

 private:
  Place arrive(uint64_t first, uint64_t last, Access access);
  void leave(Place place) noexcept;

  io::Executor& executor_;
  std::list<Entry> entries_;  // in order of arrival
  std::list<Entry> spare_;    // nodes to use again
  std::list<Entry> last_ = std::list<Entry>(1);
};

}  // namespace qcow
