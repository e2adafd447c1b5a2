// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <utility>

#include "io/outcome.h"
#include "io/task.h"

namespace io {

/// Owns the tasks that run side by side, and joins them.
///
/// spawn() runs the task at once, up to its first suspension. joined() waits for all of them and
/// rethrows the first failure. Neither needs memory: a task that could be made can be run and
/// waited for. A scope is destroyed only when empty: use run_scoped, which joins also when the body
/// throws. Belongs to one thread.
class TaskScope {
 public:
  TaskScope() = default;
  TaskScope(const TaskScope&) = delete;
  ~TaskScope();

  void spawn(Task<void> task) noexcept;

  /// `co_await scope.joined()`: waits until every task has ended; may be called again. Rethrows the
  /// first failure once.
  auto joined() noexcept {
    struct AllEnded {
      TaskScope& scope;
      bool await_ready() const noexcept { return scope.running_ == 0; }
      void await_suspend(std::coroutine_handle<> joiner) const noexcept {
        assert(!scope.joiner_ && "a scope has one joiner");
        scope.joiner_ = joiner;
      }
      void await_resume() const {
        if (scope.failure_) std::rethrow_exception(std::exchange(scope.failure_, nullptr));
      }
    };
    return AllEnded{*this};
  }
  /// The same as a task.
  Task<void> join() { co_await joined(); }

  uint64_t running() const { return running_; }
  bool failed() const { return static_cast<bool>(failure_); }

 private:
  friend struct detail::Promise<void>::Handover;
  std::coroutine_handle<> ended(std::exception_ptr failure) noexcept;

  uint64_t running_ = 0;
  std::exception_ptr failure_;
  std::coroutine_handle<> joiner_;
};

/// Runs `body(scope)` and joins everything it spawned, in success and in failure. The body's own
/// failure wins over those of its tasks.
template <class Body>
Task<void> run_scoped(Body body) {
  TaskScope scope;
  Outcome<> ran = co_await attempt([&] { return body(scope); });
  try {
    co_await scope.joined();
  } catch (...) {
    if (!ran.failed()) throw;
  }
  ran.take();
}

}  // namespace io
