#include "io/task_scope.h"

#include <cassert>

namespace io {

/// A frame that destroys itself when it ends; the scope counts it instead of holding it.
struct TaskScope::Detached {
  struct promise_type {
    Detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }  // run() catches everything
  };
};

TaskScope::~TaskScope() { assert(running_ == 0 && "join() a scope before it goes"); }

void TaskScope::spawn(Task<void> task) { run(std::move(task)); }

TaskScope::Detached TaskScope::run(Task<void> task) {
  ++running_;  // here, because a frame that cannot be had never ends
  {
    // The task's frame goes before the joiner is resumed: it may refer to what the joiner destroys.
    Task<void> owned = std::move(task);
    try {
      co_await std::move(owned);
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
    }
  }
  ended();
}

void TaskScope::ended() {
  if (--running_ == 0 && joiner_) std::exchange(joiner_, nullptr).resume();
}

Task<void> TaskScope::join() {
  struct AllEnded {
    TaskScope& scope;
    bool await_ready() const noexcept { return scope.running_ == 0; }
    void await_suspend(std::coroutine_handle<> joiner) const {
      assert(!scope.joiner_ && "a scope has one joiner");
      scope.joiner_ = joiner;
    }
    void await_resume() const noexcept {}
  };
  co_await AllEnded{*this};
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace io
