// SPDX-License-Identifier: Apache-2.0
#include "app/service_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace app {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// How often the control thread is asked when no watchdog wants it more often.
constexpr std::chrono::microseconds kUsualInterval = 5s;
/// How long a start or a stop may go on without a sign of the control thread.
constexpr auto kPatience = 15min;

/// Four times in each period of the watchdog: a late answer is not a lost one.
std::chrono::microseconds interval_for(std::chrono::microseconds watchdog) {
  if (watchdog == 0us) return kUsualInterval;
  return std::clamp<std::chrono::microseconds>(watchdog / 4, 1ms, kUsualInterval);
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace

struct ServiceStatus::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  Phase phase = Phase::starting;  // guarded by mutex, as all below
  Ask ask;
  bool is_asked = false;  // and has not answered yet
  bool has_answered = false;
  Clock::time_point sign_of_life = Clock::now();
  std::string status, told_status;
  bool is_ending = false;
};

ServiceStatus::ServiceStatus(io::Notifier notifier)
    : notifier_(std::move(notifier)),
      interval_(interval_for(notifier_.watchdog())),
      shared_(std::make_shared<Shared>()) {
  if (!notifier_.is_heard()) return;
  notifier_.send("STATUS=starting");
  thread_ = std::thread([this] { run(); });
}

ServiceStatus::~ServiceStatus() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->is_ending = true;
  }
  shared_->changed.notify_all();
  thread_.join();
}

void ServiceStatus::watch(Ask ask) {
  const std::lock_guard lock(shared_->mutex);
  shared_->ask = std::move(ask);
}

void ServiceStatus::unwatch() {
  std::unique_lock lock(shared_->mutex);
  shared_->ask = nullptr;
  shared_->changed.wait(lock, [this] { return !shared_->is_asked; });
}

void ServiceStatus::ready() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->phase = Phase::serving;
    shared_->told_status = "serving";
  }
  notifier_.send("READY=1\nSTATUS=serving");
}

void ServiceStatus::reloading() {
  notifier_.send(
      fmt::format("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the configuration again",
                  io::monotonic_time().count()));
}

void ServiceStatus::stopping() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->phase = Phase::stopping;
    shared_->sign_of_life = Clock::now();
  }
  notifier_.send("STOPPING=1\nSTATUS=stopping");
}

void ServiceStatus::run() {
  std::unique_lock lock(shared_->mutex);
  while (!shared_->is_ending) {
    if (shared_->ask && !shared_->is_asked) {
      shared_->is_asked = true;
      // Under the lock: unwatch() must find either the question or no way to put one.
      shared_->ask([shared = shared_](std::string status) {
        {
          const std::lock_guard answering(shared->mutex);
          shared->is_asked = false;
          shared->has_answered = true;
          shared->sign_of_life = Clock::now();
          shared->status = one_line(std::move(status));
        }
        shared->changed.notify_all();
      });
    }
    shared_->changed.wait_for(lock, interval_, [this] { return shared_->is_ending; });
    beat(lock);
  }
}

void ServiceStatus::beat(std::unique_lock<std::mutex>& lock) {
  std::string lines;
  if (shared_->phase == Phase::serving) {
    if (std::exchange(shared_->has_answered, false)) lines = "WATCHDOG=1\n";
    if (shared_->status != shared_->told_status && !shared_->status.empty()) {
      lines += "STATUS=" + shared_->status + "\n";
      shared_->told_status = shared_->status;
    }
  } else if (!shared_->is_ending && Clock::now() - shared_->sign_of_life < kPatience) {
    const std::chrono::microseconds more = std::max<std::chrono::microseconds>(4 * interval_, 30s);
    lines = fmt::format("EXTEND_TIMEOUT_USEC={}", more.count());
  }
  if (lines.empty()) return;
  lock.unlock();
  notifier_.send(lines);
  lock.lock();
}

}  // namespace app
