#pragma once

#include <cassert>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "io/executor.h"
#include "io/task.h"
#include "io/task_scope.h"

namespace io {

/// `co_await call_on(there, home, f)`: runs the task that `f()` makes on `there`, and goes on on
/// `home`, the caller's executor, with its result or failure. `f` and what it refers to live in the
/// caller's frame, which waits. This is how one thread asks another; nothing is shared.
template <class F>
auto call_on(Executor& there, Executor& home, F f) -> std::invoke_result_t<F> {
  using T = decltype(std::declval<std::invoke_result_t<F>>().operator co_await().await_resume());
  struct Visit {
    Executor& there;
    Executor& home;
    F& f;
    std::conditional_t<std::is_void_v<T>, std::monostate, std::optional<T>> result{};
    std::exception_ptr failure{};
    TaskScope scope{};
    std::optional<Job> back{}, home_again{};

    Task<void> work() {
      try {
        if constexpr (std::is_void_v<T>) {
          co_await f();
        } else {
          result.emplace(co_await f());
        }
      } catch (...) {
        failure = std::current_exception();
      }
      assert(there.here());
      // Two hops: the scope must be empty here before the caller, who owns it, goes on there.
      there.post(std::move(*back));
    }
    bool await_ready() const noexcept { return false; }
    /// All that needs memory is made here: when it cannot be had, nothing has begun.
    void await_suspend(std::coroutine_handle<> caller) {
      assert(home.here());
      home_again.emplace([caller] { caller.resume(); });
      back.emplace([this] { home.post(std::move(*home_again)); });
      there.post([this, task = work()]() mutable { scope.spawn(std::move(task)); });
    }
    T await_resume() {
      assert(home.here() && scope.running() == 0);
      if (failure) std::rethrow_exception(failure);
      if constexpr (!std::is_void_v<T>) return std::move(*result);
    }
  };
  Visit visit{there, home, f};
  if constexpr (std::is_void_v<T>) {
    co_await visit;
  } else {
    co_return co_await visit;
  }
}

/// The same for a thread that has no executor: blocks it until the task has ended on `there`.
/// Never call it on a ring's thread.
template <class F>
auto call_and_wait(Executor& there, F f) {
  using T = decltype(std::declval<std::invoke_result_t<F>>().operator co_await().await_resume());
  // Shared with the job that answers: that job may still be at it when the caller goes on.
  struct Outcome {
    std::promise<T> promise{};
    std::conditional_t<std::is_void_v<T>, std::monostate, std::optional<T>> result{};
    std::exception_ptr failure{};
  };
  const auto outcome = std::make_shared<Outcome>();
  auto answer = outcome->promise.get_future();
  TaskScope scope;
  Job tell([outcome] {
    if (outcome->failure) {
      outcome->promise.set_exception(outcome->failure);
    } else if constexpr (std::is_void_v<T>) {
      outcome->promise.set_value();
    } else {
      outcome->promise.set_value(std::move(*outcome->result));
    }
  });
  const auto work = [&]() -> Task<void> {
    try {
      if constexpr (std::is_void_v<T>) {
        co_await f();
      } else {
        outcome->result.emplace(co_await f());
      }
    } catch (...) {
      outcome->failure = std::current_exception();
    }
    // Another turn: the scope must be empty before the caller, who owns it, goes on.
    there.post(std::move(tell));
  };
  there.post([&scope, task = work()]() mutable { scope.spawn(std::move(task)); });
  return answer.get();
}

}  // namespace io
