#pragma once

#include <coroutine>
#include <cstdint>
#include <exception>
#include <utility>

#include "io/task.h"

namespace io {

/// Owns the tasks that run side by side, and joins them.
///
/// spawn() runs the task at once, up to its first suspension. join() waits for all of them and
/// rethrows the first failure. A scope is destroyed only when empty: use run_scoped, which joins
/// also when the body throws. Belongs to one thread.
class TaskScope {
 public:
  TaskScope() = default;
  TaskScope(const TaskScope&) = delete;
  ~TaskScope();

  void spawn(Task<void> task);

  /// Waits until every task has ended; may be called again. Rethrows the first failure once.
  Task<void> join();

  uint64_t running() const { return running_; }
  bool failed() const { return static_cast<bool>(failure_); }

 private:
  struct Detached;
  Detached run(Task<void> task);
  void ended();

  uint64_t running_ = 0;
  std::exception_ptr failure_;
  std::coroutine_handle<> joiner_;
};

/// Runs `body(scope)` and joins everything it spawned, in success and in failure. The body's own
/// failure wins over those of its tasks.
template <class Body>
Task<void> run_scoped(Body body) {
  TaskScope scope;
  std::exception_ptr failure;
  try {
    co_await body(scope);
  } catch (...) {
    failure = std::current_exception();
  }
  try {
    co_await scope.join();
  } catch (...) {
    if (!failure) failure = std::current_exception();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace io
