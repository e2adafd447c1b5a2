// SPDX-License-Identifier: Apache-2.0
#include "io/task_scope.h"

namespace io {

std::coroutine_handle<> detail::Promise<void>::Handover::await_suspend(
    std::coroutine_handle<Promise> ended) const noexcept {
  TaskScope* const scope = ended.promise().scope_;
  if (scope == nullptr) return ended.promise().awaiter_;
  std::exception_ptr failure = std::move(ended.promise().failure_);
  // The frame goes before the joiner is resumed: it may refer to what the joiner destroys.
  ended.destroy();
  return scope->ended(std::move(failure));
}

TaskScope::~TaskScope() {
  assert(running_ == 0 && "join() a scope before it goes");
  assert(!joiner_ && "whoever joins a scope is resumed before it goes");
}

void TaskScope::spawn(Task<void> task) noexcept {
  assert(task.frame_ && "a task is spawned once");
  ++running_;
  const auto frame = std::exchange(task.frame_, nullptr);
  assert(!frame.done());
  frame.promise().set_scope(*this);
  frame.resume();
}

std::coroutine_handle<> TaskScope::ended(std::exception_ptr failure) noexcept {
  assert(running_ > 0 && "a task ends once");
  if (failure && !failure_) failure_ = std::move(failure);
  if (--running_ > 0 || !joiner_) return std::noop_coroutine();
  return std::exchange(joiner_, nullptr);
}

}  // namespace io
