// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <coroutine>
#include <cstdint>
#include <list>
#include <map>
#include <utility>
#include <vector>

#include "io/executor.h"
#include "qcow/format/geometry.h"

namespace qcow {

/// Lets operations that touch the same guest clusters happen one after the other, in the order in
/// which they came (WP4).
///
/// Invariant: an operation has entered exactly when every earlier one that overlaps it, and of
/// which at least one of the two is exclusive, has left. Nothing that an operation does while it
/// is inside may wait for a commit, because a commit itself enters clusters.
///
/// The clusters in use are segments, each with the last exclusive operation that came for all of it
/// and the shared ones that came after that. So who arrives waits for those directly before it, and
/// through them for all others: the cost grows with the segments in its range, never with the
/// operations that wait elsewhere, nor with how many wait in one place.
/// Belongs to one ring thread.
class RangeQueue {
 public:
  enum class Access : uint8_t { shared, exclusive };

  explicit RangeQueue(io::Executor& executor) : executor_(executor) {}
  RangeQueue(const RangeQueue&) = delete;
  ~RangeQueue();

 private:
  struct Entry;
  using Place = std::list<Entry>::iterator;

  /// Another operation waits for this one.
  struct Link {
    Entry* later = nullptr;
    Link* next = nullptr;
  };
  /// A shared operation in one segment.
  struct Seat {
    Entry* reader = nullptr;
    Seat* next = nullptr;  // of the same reader
    Seat* next_in_segment = nullptr;
    Seat** in_segment = nullptr;  // what points here; null once an exclusive one came after it
  };
  struct Segment {
    GuestCluster last;  // inclusive
    Entry* writer = nullptr;
    Seat* readers = nullptr;
    bool idle() const { return writer == nullptr && readers == nullptr; }
  };
  using Segments = std::map<GuestCluster, Segment>;  // by first cluster

  struct Entry {
    GuestCluster first;
    GuestCluster last;  // inclusive
    Access access = Access::shared;
    bool abandoned = false;  // for lack of memory, before it changed anything
    uint32_t blockers = 0;   // earlier entries that must leave first
    io::Waiter waiter{};     // its handle is null while nothing waits
    Link* first_link = nullptr;
    Link* last_link = nullptr;
    Seat* seats = nullptr;
  };

  /// Nodes to use again.
  template <class T>
  class Pool {
   public:
    Pool() = default;
    Pool(const Pool&) = delete;
    ~Pool() {
      while (spare_ != nullptr) delete std::exchange(spare_, spare_->next);
    }
    /// So many take() without needing memory.
    void reserve(size_t count) {
      while (count_ < count) give(new T);
    }
    T* take() {
      reserve(1);
      --count_;
      return std::exchange(spare_, spare_->next);
    }
    void give(T* node) noexcept {
      node->next = std::exchange(spare_, node);
      ++count_;
    }
    void trim() noexcept {
      constexpr size_t kKept = 256;
      for (; count_ > kKept; --count_) delete std::exchange(spare_, spare_->next);
    }

   private:
    T* spare_ = nullptr;
    size_t count_ = 0;
  };

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
    explicit operator bool() const { return queue_ != nullptr; }
    /// Whether it lets its owner change all of these clusters.
    bool may_change(GuestCluster first, uint64_t count) const {
      return queue_ != nullptr && place_->access == Access::exclusive && first >= place_->first &&
             first + (count - 1) <= place_->last;
    }
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
  auto enter(GuestCluster first, uint64_t count, Access access) {
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

  /// `co_await queue.empty()`: returns when nothing is inside or waiting. Needs no memory; one
  /// waiter at a time.
  auto empty() noexcept {
    struct Awaiter {
      RangeQueue& queue;
      bool await_ready() const noexcept { return queue.entries_.empty(); }
      void await_suspend(std::coroutine_handle<> waiter) const noexcept {
        queue.when_empty_.handle = waiter;
        queue.empty_is_wanted_ = true;
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

  /// Operations inside and waiting.
  size_t size() const { return entries_.size(); }
  /// Segments and operations looked at so far: what all calls together have cost.
  uint64_t steps() const { return steps_; }

 private:
  Place arrive(GuestCluster first, GuestCluster last, Access access);
  void arrive_exclusive(Entry& entry);
  void arrive_shared(Entry& entry);
  void leave(Place place) noexcept;
  void free_segments(const Entry& entry) noexcept;
  void wake_later(Entry& entry) noexcept;
  void split(GuestCluster at);
  void wait_for(Entry& earlier, Entry& later);
  void sit(Seat* seat, Entry& reader, Segment& segment) noexcept;
  void rise(Seat& seat) noexcept;
  void reserve_segments(size_t count);
  Segment& add_segment(GuestCluster first, GuestCluster last) noexcept;
  Segments::iterator remove_segment(Segments::iterator segment) noexcept;

  io::Executor& executor_;
  std::list<Entry> entries_;  // in order of arrival
  std::list<Entry> spare_;    // nodes to use again
  Segments segments_;         // disjoint; none is idle
  std::vector<Segments::node_type> spare_segments_;
  Pool<Link> links_;
  Pool<Seat> seats_;
  io::Waiter when_empty_{};
  bool empty_is_wanted_ = false;
  uint64_t steps_ = 0;
};

}  // namespace qcow
