// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <liburing.h>

#include <cassert>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "io/clock.h"
#include "io/executor.h"
#include "io/outcome.h"
#include "io/owned_fd.h"
#include "io/task.h"
#include "io/task_scope.h"

namespace io {

/// What the kernel's io_uring offers; each tier needs a newer kernel than the next.
enum class RingTier : uint8_t {
  a,  ///< 6.1: single issuer, completions are worked off only when the ring asks for them
  b,  ///< 5.19: cooperative task running
  c,  ///< 5.15: the plain ring
};
const char* to_text(RingTier tier);

struct RingOptions {
  unsigned entries = 512;
  RingTier best_tier = RingTier::a;  ///< for tests of the lower tiers on a newer kernel
};

/// One io_uring, the coroutines that wait for it, and their timers: an Executor and a Clock.
///
/// Invariant: a turn collects all completions before it resumes any coroutine, and everything that
/// the resumed coroutines submit leaves in one system call. The kernel only ever holds pointers
/// into coroutine frames that are suspended on the operation.
///
/// Made and used on one thread; only post() may be called from others.
class Ring final : public Executor, public Clock {
 public:
  /// Throws std::system_error with a sentence on why this kernel or container has no io_uring.
  explicit Ring(const RingOptions& options = {});
  Ring(const Ring&) = delete;
  ~Ring() override;

  RingTier tier() const { return tier_; }

  /// Names an operation while it is under way, for cancel().
  class Handle {
   public:
    bool is_under_way() const { return completion != nullptr; }

   private:
    friend class Ring;
    void* completion = nullptr;
  };

  /// `const int32_t result = co_await ring.submit([&](io_uring_sqe* sqe) { io_uring_prep_…; })`:
  /// the completion's result, a negative errno in failure. What `prepare` points the kernel to must
  /// live in the awaiting frame. Never issued outside io/.
  template <class Prepare>
  auto submit(Prepare prepare, Handle* handle = nullptr) {
    struct Operation : Completion {
      Operation(Ring& ring, Prepare prepare, Handle* name)
          : ring(ring), prepare(std::move(prepare)), name(name) {}
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> awaiter) {
        assert(ring.here());
        assert((!name || !name->is_under_way()) && "a handle names one operation at a time");
        this->handle = awaiter;
        io_uring_sqe* const sqe = ring.next_sqe();
        prepare(sqe);
        io_uring_sqe_set_data(sqe, static_cast<Completion*>(this));
        ++ring.in_flight_;
        if (name) name->completion = static_cast<Completion*>(this);
      }
      int32_t await_resume() const noexcept {
        if (name) name->completion = nullptr;
        return result;
      }
      Ring& ring;
      Prepare prepare;
      Handle* name;
    };
    return Operation(*this, std::move(prepare), handle);
  }

  /// Makes the operation complete with -ECANCELED, unless it has completed already. Does not wait.
  void cancel(const Handle& handle);

  /// Runs `blocking` on this ring's worker thread, for the few system calls that io_uring lacks
  /// (ftruncate, readdir, statvfs); its result or failure arrives here.
  template <class F>
  Task<std::invoke_result_t<F>> run_blocking(F blocking);

  /// Turns until `task` has ended, and returns its result.
  template <class T>
  T run(Task<T> task);

  void resume_soon(Waiter& waiter) noexcept override {
    assert(here());
    ready_.push(waiter);
  }
  void post(Job job) override;
  bool here() const override { return std::this_thread::get_id() == thread_; }

  SteadyTime now() const override { return std::chrono::steady_clock::now(); }
  WallTime wall_time() const override { return std::chrono::system_clock::now(); }
  std::unique_ptr<Alarm> call_at(SteadyTime due, Job action) override;

 private:
  struct Completion : Waiter {
    int32_t result = 0;
  };
  class RingAlarm;
  class Workers;
  using Alarms = std::multimap<SteadyTime, RingAlarm*>;

  io_uring_sqe* next_sqe();
  void turn();
  void resume_ready();
  void run_posted();
  void arm_wakeup();
  void wait_for_completions();
  void reap();
  void fire_alarms();
  void enqueue_blocking(Job job);
  void run_until(const bool& done);

  io_uring ring_{};
  RingTier tier_ = RingTier::a;
  std::thread::id thread_ = std::this_thread::get_id();
  uint64_t in_flight_ = 0;
  WaiterQueue ready_;
  Alarms alarms_;

  OwnedFd wakeup_;  // eventfd that post() writes to
  uint64_t wakeup_count_ = 0;
  bool wakeup_armed_ = false;
  Completion wakeup_completion_;
  std::mutex posted_mutex_;
  JobQueue posted_;  // guarded by posted_mutex_

  std::unique_ptr<Workers> workers_;
};

template <class F>
Task<std::invoke_result_t<F>> Ring::run_blocking(F blocking) {
  using T = std::invoke_result_t<F>;
  struct Elsewhere {
    Ring& ring;
    F& blocking;
    std::optional<Outcome<T>> outcome{};

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
      Job back([waiter] { waiter.resume(); });  // here, where lack of memory can be reported
      ring.enqueue_blocking([this, back = std::move(back)]() mutable {
        outcome.emplace(attempt(std::ref(blocking)));
        ring.post(std::move(back));
      });
    }
    T await_resume() { return outcome->take(); }
  };
  Elsewhere elsewhere{*this, blocking};
  co_return co_await elsewhere;
}

template <class T>
T Ring::run(Task<T> task) {
  bool done = false;
  std::optional<Outcome<T>> outcome;
  const auto drive = [&]() -> Task<void> {
    outcome.emplace(co_await attempt(std::move(task)));
    done = true;
  };
  TaskScope scope;
  scope.spawn(drive());
  run_until(done);
  return outcome->take();
}

}  // namespace io
