#pragma once

#include <algorithm>
#include <cassert>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <utility>

#include "io/executor.h"
#include "io/task.h"

/// Waiting between coroutines of one thread. None of these is thread-safe; use Executor::post to
/// come from elsewhere. Waiters are resumed through the executor, never from inside set() or
/// release(), so a caller's invariants hold until its own next suspension.
namespace io {

/// `co_await NextTurn{executor}`: everybody else who is ready goes first. For loops over work that
/// may never have to wait.
struct NextTurn {
  Executor& executor;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) const { executor.resume_soon(waiter); }
  void await_resume() const noexcept {}
};

/// A gate that is shut until set(), and open from then on until reset().
class Event {
 public:
  explicit Event(Executor& executor) : executor_(executor) {}
  Event(const Event&) = delete;
  ~Event() { assert(waiting_.empty() && "an event outlives its waiters"); }

  void set() {
    set_ = true;
    wake();
  }
  /// Lets everybody who waits now go on, without opening the gate for later ones.
  void wake() {
    for (const auto waiter : std::exchange(waiting_, {})) executor_.resume_soon(waiter);
  }
  void reset() { set_ = false; }
  bool is_set() const { return set_; }

  /// `co_await event.wait()`: returns once set. A set() followed by a reset() still wakes
  /// everybody who was waiting.
  auto wait() {
    struct Awaiter {
      Event& event;
      bool await_ready() const noexcept { return event.set_; }
      void await_suspend(std::coroutine_handle<> waiter) { event.waiting_.push_back(waiter); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  Executor& executor_;
  bool set_ = false;
  std::deque<std::coroutine_handle<>> waiting_;
};

/// A budget of units (bytes, slots), granted first come first served: a large request is never
/// overtaken by smaller ones, so it cannot starve.
class Semaphore {
 public:
  Semaphore(Executor& executor, uint64_t units) : executor_(executor), free_(units) {}
  Semaphore(const Semaphore&) = delete;
  ~Semaphore() { assert(waiting_.empty() && "a semaphore outlives its waiters"); }

  bool try_acquire(uint64_t units) {
    if (!waiting_.empty() || units > free_) return false;
    free_ -= units;
    return true;
  }

  /// `co_await semaphore.acquire(n)`: returns once n units are taken. n must not exceed the total.
  /// With a `key`, false when withdraw(key) ended the wait, and nothing is taken.
  auto acquire(uint64_t units, const void* key = nullptr) {
    struct Awaiter {
      Semaphore& semaphore;
      uint64_t units;
      const void* key;
      bool taken = true;
      bool await_ready() const noexcept { return semaphore.try_acquire(units); }
      void await_suspend(std::coroutine_handle<> waiter) {
        semaphore.waiting_.push_back({waiter, units, key, &taken});
      }
      bool await_resume() const noexcept { return taken; }
    };
    return Awaiter{*this, units, key};
  }

  /// Ends the wait of the first who waits under `key`; false when nobody does.
  bool withdraw(const void* key) {
    const auto waiter = std::ranges::find(waiting_, key, &Waiter::key);
    if (waiter == waiting_.end()) return false;
    *waiter->taken = false;
    executor_.resume_soon(waiter->handle);
    waiting_.erase(waiter);
    release(0);  // whoever comes next may want less
    return true;
  }

  void release(uint64_t units) {
    free_ += units;
    while (!waiting_.empty() && waiting_.front().units <= free_) {
      free_ -= waiting_.front().units;
      executor_.resume_soon(waiting_.front().handle);
      waiting_.pop_front();
    }
  }

  uint64_t available() const { return free_; }
  bool contended() const { return !waiting_.empty(); }
  /// What the first of those who wait needs beyond what is free; 0 when nobody waits.
  uint64_t missing() const { return waiting_.empty() ? 0 : waiting_.front().units - free_; }

 private:
  struct Waiter {
    std::coroutine_handle<> handle;
    uint64_t units;
    const void* key;
    bool* taken;  // in the waiter's frame
  };
  Executor& executor_;
  uint64_t free_;
  std::deque<Waiter> waiting_;
};

/// Units taken from a Semaphore, given back by the destructor.
class Grant {
 public:
  Grant() = default;
  Grant(Semaphore& from, uint64_t units) : from_(&from), units_(units) {}
  Grant(Grant&& other) noexcept
      : from_(std::exchange(other.from_, nullptr)), units_(std::exchange(other.units_, 0)) {}
  Grant& operator=(Grant&& other) noexcept {
    if (this != &other) {
      release();
      from_ = std::exchange(other.from_, nullptr);
      units_ = std::exchange(other.units_, 0);
    }
    return *this;
  }
  ~Grant() { release(); }

  void release() {
    if (from_) std::exchange(from_, nullptr)->release(std::exchange(units_, 0));
  }

  static Task<Grant> acquire(Semaphore& from, uint64_t units) {
    co_await from.acquire(units);
    co_return Grant(from, units);
  }

 private:
  Semaphore* from_ = nullptr;
  uint64_t units_ = 0;
};

/// Mutual exclusion across suspension points: `const Grant lock = co_await mutex.lock();`
class Mutex {
 public:
  explicit Mutex(Executor& executor) : semaphore_(executor, 1) {}
  Task<Grant> lock() { return Grant::acquire(semaphore_, 1); }
  bool locked() const { return semaphore_.available() == 0; }

 private:
  Semaphore semaphore_;
};

}  // namespace io
