// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <coroutine>
#include <cstdint>
#include <utility>

#include "io/executor.h"
#include "io/task.h"

/// Waiting between coroutines of one thread. None of these is thread-safe; use Executor::post to
/// come from elsewhere. Waiters are resumed through the executor, never from inside set() or
/// release(), so a caller's invariants hold until its own next suspension.
namespace io {

/// `co_await NextTurn{executor}`: all others that are ready go first. For loops over work that
/// may never have to wait.
struct NextTurn {
  Executor& executor;
  Waiter waiter{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter.handle = handle;
    executor.resume_soon(waiter);
  }
  void await_resume() const noexcept {}
};

/// A gate that is shut until set(), and open from then on until reset().
class Event {
 public:
  explicit Event(Executor& executor) : executor_(executor) {}
  Event(const Event&) = delete;
  ~Event() { assert(waiting_.empty() && "an event outlives its waiters"); }

  void set() noexcept {
    set_ = true;
    wake();
  }
  /// Resumes all that wait now, without opening the gate for later ones.
  void wake() noexcept {
    while (!waiting_.empty()) executor_.resume_soon(waiting_.pop());
  }
  void reset() noexcept { set_ = false; }
  bool is_set() const { return set_; }

  /// `co_await event.wait()`: returns once set. A set() followed by a reset() still wakes
  /// all that were waiting.
  auto wait() {
    struct Awaiter {
      Event& event;
      Waiter waiter{};
      bool await_ready() const noexcept { return event.set_; }
      void await_suspend(std::coroutine_handle<> handle) noexcept {
        waiter.handle = handle;
        event.waiting_.push(waiter);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  Executor& executor_;
  bool set_ = false;
  WaiterQueue waiting_;
};

/// A budget of units (bytes, slots), granted first come first served: a large request is never
/// overtaken by smaller ones, so it cannot starve.
class Semaphore {
 public:
  Semaphore(Executor& executor, uint64_t units)
      : executor_(executor), total_(units), free_(units) {}
  Semaphore(const Semaphore&) = delete;
  ~Semaphore() { assert(waiting_.empty() && "a semaphore outlives its waiters"); }

  bool try_acquire(uint64_t units) noexcept {
    assert(waiting_.empty() || first_wanted() > free_);  // who could be served has been
    if (!waiting_.empty() || units > free_) return false;
    free_ -= units;
    return true;
  }

  /// `co_await semaphore.acquire(n)`: returns once n units are taken. n must not exceed the total.
  /// With a `key`, false when withdraw(key) ended the wait, and nothing is taken.
  auto acquire(uint64_t units, const void* key = nullptr) {
    struct Awaiter {
      Semaphore& semaphore;
      Request request;
      bool await_ready() const noexcept { return semaphore.try_acquire(request.units); }
      void await_suspend(std::coroutine_handle<> handle) noexcept {
        request.handle = handle;
        semaphore.waiting_.push(request);
      }
      bool await_resume() const noexcept { return request.taken; }
    };
    return Awaiter{*this, Request{{}, units, key}};
  }

  /// Ends the wait of the first who waits under `key`; false when none does.
  bool withdraw(const void* key) noexcept {
    const auto has_key = [key](Waiter& waiter) { return static_cast<Request&>(waiter).key == key; };
    Waiter* const waiter = waiting_.take(has_key);
    if (waiter == nullptr) return false;
    static_cast<Request*>(waiter)->taken = false;
    executor_.resume_soon(*waiter);
    release(0);  // whoever comes next may want less
    return true;
  }

  void release(uint64_t units) noexcept {
    assert(units <= total_ - free_ && "units are given back once");
    free_ += units;
    while (!waiting_.empty() && first_wanted() <= free_) {
      free_ -= first_wanted();
      executor_.resume_soon(waiting_.pop());
    }
  }

  /// The budget itself changes: by units that are free from now on, or that were taken and do not
  /// come back.
  void grow(uint64_t units) noexcept {
    total_ += units;
    release(units);
  }
  void shrink(uint64_t taken_units) noexcept {
    assert(taken_units <= total_ - free_ && "only what is taken can be withheld");
    total_ -= taken_units;
  }

  uint64_t available() const { return free_; }
  bool contended() const { return !waiting_.empty(); }
  /// What the first of those who wait needs beyond what is free; 0 when none waits.
  uint64_t missing() const { return waiting_.empty() ? 0 : first_wanted() - free_; }

 private:
  struct Request : Waiter {
    uint64_t units = 0;
    const void* key = nullptr;
    bool taken = true;  // once it is resumed
  };
  uint64_t first_wanted() const { return static_cast<Request&>(waiting_.front()).units; }

  Executor& executor_;
  uint64_t total_, free_;
  WaiterQueue waiting_;  // of Requests
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

  void release() noexcept {
    if (from_) std::exchange(from_, nullptr)->release(std::exchange(units_, 0));
  }

  /// They are another owner's to give back now.
  void keep() noexcept { from_ = nullptr; }

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
