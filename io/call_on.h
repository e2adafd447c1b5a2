#pragma once

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

    Task<void> work(std::coroutine_handle<> caller) {
      try {
        if constexpr (std::is_void_v<T>) {
          co_await f();
        } else {
          result.emplace(co_await f());
        }
      } catch (...) {
        failure = std::current_exception();
      }
      // Two hops: the scope must be empty here before the caller, who owns it, goes on there.
      there.post([this, caller] { home.post([caller] { caller.resume(); }); });
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) {
      there.post([this, caller] { scope.spawn(work(caller)); });
    }
    T await_resume() {
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
  const auto promise = std::make_shared<std::promise<T>>();
  auto answer = promise->get_future();
  TaskScope scope;
  const auto work = [&]() -> Task<void> {
    try {
      if constexpr (std::is_void_v<T>) {
        co_await f();
        there.post([promise] { promise->set_value(); });
      } else {
        // Shared, because a job is moved and the result may be move-only.
        const auto result = std::make_shared<std::optional<T>>(co_await f());
        there.post([promise, result] { promise->set_value(std::move(**result)); });
      }
    } catch (...) {
      there.post(
          [promise, failure = std::current_exception()] { promise->set_exception(failure); });
    }
  };
  there.post([&] { scope.spawn(work()); });
  return answer.get();
}

}  // namespace io
