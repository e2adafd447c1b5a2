// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <coroutine>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "io/task.h"

/// Keeps how something ended, for code that has more to do before it passes that on: to clean up,
/// to answer, to wait. (`catch` cannot suspend, and a destructor neither.)
///
///     io::Outcome<> written = co_await io::attempt([&] { return write_new(path); });
///     if (written.failed()) co_await remove(path);
///     written.take();
namespace io {

/// A T, or the failure that was thrown in its place. Failed outcomes must be looked at.
template <class T = void>
class [[nodiscard]] Outcome {
 public:
  using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  explicit Outcome(Value value) : value_(std::move(value)) {}
  explicit Outcome(std::exception_ptr failure) noexcept : failure_(std::move(failure)) {
    assert(failure_);
  }

  bool failed() const noexcept { return failure_ != nullptr; }
  /// Null unless failed().
  const std::exception_ptr& failure() const noexcept { return failure_; }

  /// The value, once; or throws the failure.
  T take() {
    if (failure_) std::rethrow_exception(failure_);
    if constexpr (!std::is_void_v<T>) return *std::move(value_);
  }

 private:
  std::optional<Value> value_;
  std::exception_ptr failure_;
};

namespace detail {

template <class T>
struct ResultOfTask {};
template <class T>
struct ResultOfTask<Task<T>> {
  using type = T;
};
template <class F>
concept MakesTask = requires {
  typename ResultOfTask<std::invoke_result_t<F&>>::type;
};

/// Awaits the task that `make` makes; needs no memory beside the task's.
template <class F>
struct Attempt {
  using T = typename ResultOfTask<std::invoke_result_t<F&>>::type;
  F make;
  std::optional<Task<T>> task{};
  std::exception_ptr failure{};

  bool await_ready() noexcept {
    try {
      task.emplace(make());
    } catch (...) {
      failure = std::current_exception();
    }
    return !task;
  }
  bool await_suspend(std::coroutine_handle<> awaiter) {
    return (*std::move(task)).operator co_await().await_suspend(awaiter);
  }
  Outcome<T> await_resume() noexcept;
};

}  // namespace detail

/// Calls `f` and keeps how it ended.
template <class F>
auto attempt(F f) noexcept -> Outcome<std::invoke_result_t<F&>> {
  using T = std::invoke_result_t<F&>;
  try {
    if constexpr (std::is_void_v<T>) {
      std::invoke(f);
      return Outcome<T>(std::monostate());
    } else {
      return Outcome<T>(std::invoke(f));
    }
  } catch (...) {
    return Outcome<T>(std::current_exception());
  }
}

/// `co_await attempt(f)`: the same of the task that `f` makes, and of its making. `f` and what it
/// refers to live until the task has ended.
template <detail::MakesTask F>
auto attempt(F f) noexcept {
  return detail::Attempt<F>{std::move(f)};
}

/// `co_await attempt(std::move(task))`.
template <class T>
auto attempt(Task<T> task) noexcept {
  return attempt([task = std::move(task)]() mutable -> Task<T> { return std::move(task); });
}

template <class F>
auto detail::Attempt<F>::await_resume() noexcept -> Outcome<T> {
  if (failure) return Outcome<T>(std::move(failure));
  return attempt([this]() -> T { return (*std::move(task)).operator co_await().await_resume(); });
}

}  // namespace io
