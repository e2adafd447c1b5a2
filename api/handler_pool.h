// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace api {

/// Threads for handlers, which block as long as the engine does.
///
/// Jobs start in the order of post(); a thread is made only when a job finds none idle, and never
/// more than `threads_max`. Where the system refuses a thread, those that are there do the work.
/// Jobs throw nothing. Thread-safe.
class HandlerPool {
 public:
  explicit HandlerPool(size_t threads_max);
  HandlerPool(const HandlerPool&) = delete;
  /// Waits for every job posted.
  ~HandlerPool();

  /// False when there is no thread and none can be created: the job is dropped then.
  [[nodiscard]] bool post(std::function<void()> job);

 private:
  void add_thread();  // with mutex_ held
  void work();

  const size_t threads_max_;
  std::mutex mutex_;  // guards all below
  std::condition_variable arrived_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool ending_ = false;
};

}  // namespace api
