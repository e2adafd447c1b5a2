// SPDX-License-Identifier: Apache-2.0
#include "io/ring_thread.h"

#include <pthread.h>

#include <random>

#include "io/ring_file_system.h"

namespace io {

class RingRuntime::SystemRandom final : public Random {
 public:
  uint64_t next() override { return (uint64_t{device_()} << 32) | device_(); }

 private:
  std::random_device device_;
};

namespace {

std::shared_ptr<MemoryBudget> budget_of(const RingThreadOptions& options) {
  if (options.shared_budget) return options.shared_budget;
  return std::make_shared<MemoryBudget>(options.buffer_budget_bytes);
}

}  // namespace

RingRuntime::RingRuntime(const RingThreadOptions& options)
    : ring_(std::make_unique<Ring>(options.ring)),
      files_(std::make_unique<RingFileSystem>(*ring_)),
      buffers_(std::make_unique<BufferPool>(*ring_, budget_of(options))),
      random_(std::make_unique<SystemRandom>()) {}

RingRuntime::~RingRuntime() = default;

Runtime RingRuntime::runtime() {
  return {.executor = *ring_,
          .clock = *ring_,
          .files = *files_,
          .buffers = *buffers_,
          .random = *random_};
}

RingThread::RingThread(std::string name, const RingThreadOptions& options) {
  std::promise<void> started;
  auto is_up = started.get_future();
  thread_ = std::thread([this, name = std::move(name), options, &started]() mutable {
    serve(name, options, started);
  });
  try {
    is_up.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

RingThread::~RingThread() { stop(); }

void RingThread::serve(const std::string& name, const RingThreadOptions& options,
                       std::promise<void>& started) {
  // The kernel truncates names to 15 characters.
  ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
  try {
    runtime_ = std::make_unique<RingRuntime>(options);
    stopping_ = std::make_unique<Event>(ring());
  } catch (...) {
    started.set_exception(std::current_exception());
    return;
  }
  started.set_value();
  // `started` is gone from here on: its owner continues.
  const auto until_stopped = [this]() -> Task<void> { co_await stopping_->wait(); };
  ring().run(until_stopped());
  stopping_.reset();
  runtime_.reset();
}

void RingThread::stop() {
  if (!thread_.joinable()) return;
  ring().post([this] { stopping_->set(); });
  thread_.join();
}

}  // namespace io
