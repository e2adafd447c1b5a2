// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "io/executor.h"
#include "io/outcome.h"
#include "io/task.h"
#include "io/task_scope.h"

namespace io {

/// `co_await call_on(target, caller, f)`: runs the task that `f()` makes on `target`, and continues
/// on `caller`, its own executor, with the result or failure. `f` and what it refers to live in the
/// caller's frame, which waits. This is how one thread asks another; nothing is shared.
template <class F>
auto call_on(Executor& target, Executor& caller, F f) -> std::invoke_result_t<F> {
  using T = decltype(std::declval<std::invoke_result_t<F>>().operator co_await().await_resume());
  struct Visit {
    Executor& target;
    Executor& caller;
    F& f;
    std::optional<Outcome<T>> outcome{};
    TaskScope scope{};
    std::optional<Job> back{}, resume_caller{};

    Task<void> work() {
      outcome.emplace(co_await attempt(std::ref(f)));
      assert(target.here());
      // Two hops: the scope must be empty here before the caller, who owns it, continues there.
      target.post(std::move(*back));
    }
    bool await_ready() const noexcept { return false; }
    /// All that needs memory is made here: when it cannot be had, nothing has begun.
    void await_suspend(std::coroutine_handle<> waiter) {
      assert(caller.here());
      resume_caller.emplace([waiter] { waiter.resume(); });
      back.emplace([this] { caller.post(std::move(*resume_caller)); });
      target.post([this, task = work()]() mutable { scope.spawn(std::move(task)); });
    }
    T await_resume() {
      assert(caller.here() && scope.running() == 0);
      return outcome->take();
    }
  };
  Visit visit{target, caller, f};
  co_return co_await visit;
}

/// The same for a thread that has no executor: blocks it until the task has ended on `target`.
/// Never call it on a ring's thread.
template <class F>
auto call_and_wait(Executor& target, F f) {
  using T = decltype(std::declval<std::invoke_result_t<F>>().operator co_await().await_resume());
  // Shared with the job that answers: that job may still be at it when the caller continues.
  struct Answer {
    std::promise<Outcome<T>> promise{};
    std::optional<Outcome<T>> outcome{};
  };
  const auto answer = std::make_shared<Answer>();
  auto arrives = answer->promise.get_future();
  TaskScope scope;
  Job tell([answer] { answer->promise.set_value(*std::move(answer->outcome)); });
  const auto work = [&]() -> Task<void> {
    answer->outcome.emplace(co_await attempt(std::ref(f)));
    // Another turn: the scope must be empty before the caller, who owns it, continues.
    target.post(std::move(tell));
  };
  target.post([&scope, task = work()]() mutable { scope.spawn(std::move(task)); });
  return arrives.get().take();
}

}  // namespace io
