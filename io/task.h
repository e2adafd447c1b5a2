// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <coroutine>
#include <exception>
#include <optional>
#include <utility>
#include <variant>

/// Task<T>: a lazy coroutine, awaited exactly once, that runs on its awaiter's thread until it
/// first has to wait, and hands the thread back to its awaiter when it ends.
///
/// A task that was started must be awaited to its end: whoever holds it owns the frame, and the
/// kernel may hold pointers into that frame. TaskScope (io/task_scope.h) is the way to start
/// several at once. A task belongs to one thread.
///
/// g++ 12: bind temporaries to named locals before `co_await`, and never put `co_await` inside a
/// braced list or a conditional expression; that compiler destroys such temporaries twice.
namespace io {

template <class T = void>
class Task;

class TaskScope;

namespace detail {

class PromiseBase {
 public:
  struct Handover {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
      return ended.promise().awaiter_;
    }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  Handover final_suspend() const noexcept { return {}; }
  void set_awaiter(std::coroutine_handle<> awaiter) { awaiter_ = awaiter; }

 protected:
  std::coroutine_handle<> awaiter_ = std::noop_coroutine();
};

template <class T>
class Promise : public PromiseBase {
 public:
  Task<T> get_return_object() noexcept;
  void unhandled_exception() noexcept { outcome_.template emplace<2>(std::current_exception()); }
  template <class U>
  void return_value(U&& value) {
    outcome_.template emplace<1>(std::forward<U>(value));
  }
  T take() {
    if (outcome_.index() == 2) std::rethrow_exception(std::get<2>(outcome_));
    assert(outcome_.index() == 1 && "a task has a result once it has ended");
    return std::move(std::get<1>(outcome_));
  }

 private:
  std::variant<std::monostate, T, std::exception_ptr> outcome_;
};

template <>
class Promise<void> : public PromiseBase {
 public:
  /// A task spawned in a scope owns its own frame: it is destroyed here, before the scope hears of
  /// the end.
  struct Handover {
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept;
    void await_resume() const noexcept {}
  };
  Handover final_suspend() const noexcept { return {}; }
  void set_scope(TaskScope& scope) { scope_ = &scope; }
  Task<void> get_return_object() noexcept;
  void unhandled_exception() noexcept { failure_ = std::current_exception(); }
  void return_void() const noexcept {}
  void take() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::exception_ptr failure_;
  TaskScope* scope_ = nullptr;
};

}  // namespace detail

template <class T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;

  Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      if (frame_) frame_.destroy();
      frame_ = std::exchange(other.frame_, nullptr);
    }
    return *this;
  }
  ~Task() {
    if (frame_) frame_.destroy();
  }

  auto operator co_await() && noexcept {
    struct Awaiter {
      std::coroutine_handle<promise_type> frame;
      bool await_ready() const noexcept { return false; }
      /// A task that ends at once gives its awaiter back the thread here, not from inside itself: a
      /// loop over such tasks needs no stack, also where the compiler makes no tail calls.
      bool await_suspend(std::coroutine_handle<> awaiter) const {
        assert(!frame.done() && "a task is awaited once");
        frame.resume();
        if (frame.done()) return false;
        frame.promise().set_awaiter(awaiter);
        return true;
      }
      T await_resume() const {
        assert(frame.done());
        return frame.promise().take();
      }
    };
    assert(frame_ && "a task is awaited once");
    return Awaiter{frame_};
  }

 private:
  friend promise_type;
  friend class TaskScope;
  explicit Task(std::coroutine_handle<promise_type> frame) : frame_(frame) {}
  std::coroutine_handle<promise_type> frame_;
};

template <class T>
Task<T> detail::Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}
inline Task<void> detail::Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

}  // namespace io
