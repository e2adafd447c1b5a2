// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "io/memory_budget.h"
#include "io/ring.h"
#include "io/runtime.h"

namespace io {

struct RingThreadOptions {
  RingOptions ring;
  uint64_t buffer_budget_bytes = 256 << 20;
  std::shared_ptr<MemoryBudget> shared_budget;  ///< when set, in the place of a budget of its own
};

/// A ring with its file system, buffers and randomness: what makes a Runtime.
class RingRuntime {
 public:
  explicit RingRuntime(const RingThreadOptions& options = {});
  ~RingRuntime();
  Ring& ring() { return *ring_; }
  Runtime runtime();

 private:
  class SystemRandom;
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<FileSystem> files_;
  std::unique_ptr<BufferPool> buffers_;
  std::unique_ptr<Random> random_;
};

/// A thread that turns one ring until stop().
///
/// Whoever started tasks on the ring joins them before stop(): the ring must be at rest then.
class RingThread {
 public:
  /// Returns once the ring exists; throws what making it threw.
  explicit RingThread(std::string name, const RingThreadOptions& options = {});
  ~RingThread();

  Ring& ring() { return runtime_->ring(); }
  Runtime runtime() { return runtime_->runtime(); }

  /// Ends the turning and joins the thread; may be called again.
  void stop();

 private:
  void serve(const std::string& name, const RingThreadOptions& options,
             std::promise<void>& started);

  std::unique_ptr<RingRuntime> runtime_;
  std::unique_ptr<Event> stopping_;
  std::thread thread_;
};

}  // namespace io
