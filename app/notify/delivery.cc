// SPDX-License-Identifier: Apache-2.0
#include "app/notify/delivery.h"

#include <fmt/format.h>

#include <utility>

#include "io/log.h"

namespace app {
namespace {

constexpr int kPauseGrowth = 5;

}  // namespace

DeliveryQueue::DeliveryQueue(std::string word, std::unique_ptr<DeliveryWay> way,
                             DeliveryTimes times)
    : word_(std::move(word)), way_(std::move(way)), times_(times), thread_([this] { run(); }) {}

void DeliveryQueue::begin_stop() {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  stopping_ = true;
  stop_until_ = std::chrono::steady_clock::now() + times_.at_stop;
  changed_.notify_all();
}

DeliveryQueue::~DeliveryQueue() {
  begin_stop();
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, stop_until_, [this] { return waiting_.empty() && is_idle_; });
  given_up_ = true;
  if (!waiting_.empty()) {
    counts_.dropped += waiting_.size();
    io::log(io::LogLevel::warning, "notify: {} messages are dropped: varve stops", waiting_.size());
    waiting_.clear();
  }
  changed_.notify_all();
  lock.unlock();
  way_->interrupt();
  thread_.join();
}

void DeliveryQueue::add(std::shared_ptr<const Message> message) noexcept {
  const std::lock_guard lock(mutex_);
  bool is_dropped = waiting_.size() >= kWaitingMax || stopping_;
  if (!is_dropped) {
    try {
      waiting_.push_back(message);
    } catch (const std::bad_alloc&) {
      is_dropped = true;
    }
  }
  if (is_dropped) {
    ++counts_.dropped;
    io::log(io::LogLevel::warning, "notify: {} is not sent by {}: {}", message->about, word_,
            stopping_ ? "varve stops" : fmt::format("{} messages wait already", waiting_.size()));
    return;
  }
  changed_.notify_all();
}

DeliveryQueue::Counts DeliveryQueue::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void DeliveryQueue::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !waiting_.empty() || stopping_; });
    if (waiting_.empty()) return;
    const auto message = std::move(waiting_.front());
    waiting_.pop_front();
    is_idle_ = false;
    lock.unlock();
    deliver(*message);
    lock.lock();
    is_idle_ = true;
    changed_.notify_all();
  }
}

void DeliveryQueue::deliver(const Message& message) {
  std::chrono::milliseconds wait = times_.first_pause;
  std::string cause;
  for (int attempt = 1; attempt <= times_.tries; ++attempt) {
    try {
      way_->deliver(message);
      const std::lock_guard lock(mutex_);
      ++counts_.delivered;
      return;
    } catch (const DeliveryFailure& failure) {
      cause = failure.what();
      if (!failure.may_help_again || attempt == times_.tries || !pause(wait)) break;
    } catch (const std::exception& failure) {
      cause = failure.what();
      break;
    }
    wait *= kPauseGrowth;
  }
  io::log(io::LogLevel::warning, "notify: {} could not be told: {}", message.about, cause);
  const std::lock_guard lock(mutex_);
  ++counts_.failed;
}

/// False when varve does not wait any longer.
bool DeliveryQueue::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [this] { return given_up_; });
}

}  // namespace app
