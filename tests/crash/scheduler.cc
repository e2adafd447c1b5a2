// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/scheduler.h"

#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace crash {

using std::chrono::microseconds;
using std::chrono::seconds;

class Scheduler::SimAlarm final : public Alarm {
 public:
  SimAlarm(Scheduler& scheduler, AlarmKey key) : scheduler_(scheduler), key_(key) {}
  ~SimAlarm() override { scheduler_.alarms_.erase(key_); }

 private:
  Scheduler& scheduler_;
  AlarmKey key_;
};

Scheduler::Scheduler(uint64_t seed) : rng_(seed), now_(seconds(1000)) {
  // Some seeds starve writes, some syncs, some clients: queues of every shape come about.
  for (uint32_t& weight : weight_) weight = 1u << rng_.below(6);
  alarm_rate_ = 4u << rng_.below(6);
}

Scheduler::~Scheduler() { assert(waiting_.empty() && "somebody still waits for a turn"); }

void Scheduler::resume_soon(io::Waiter& waiter) noexcept {
  ready_.push_back([&waiter] { waiter.handle.resume(); });
}

io::WallTime Scheduler::wall_time() const {
  constexpr auto kStart = seconds(1'700'000'000);
  const auto since = now_.time_since_epoch() + kStart;
  return io::WallTime(std::chrono::duration_cast<io::WallTime::duration>(since));
}

std::unique_ptr<io::Clock::Alarm> Scheduler::call_at(io::SteadyTime due, io::Job action) {
  const AlarmKey key{due, ++alarms_ever_};
  alarms_.emplace(key, std::move(action));
  return std::make_unique<SimAlarm>(*this, key);
}

void Scheduler::run_to_end(io::Task<void> task) {
  io::TaskScope scope;
  scope.spawn(std::move(task));
  while (scope.running() > 0) step();
  if (!scope.failed()) return;
  // Nothing is left to wait for, so this ends at once.
  io::TaskScope collector;
  std::exception_ptr failure;
  auto collect = [&]() -> io::Task<void> {
    try {
      co_await scope.join();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  collector.spawn(collect());
  std::rethrow_exception(failure);
}

/// Tasks that wait for ever cannot be taken down: the program ends, and says why.
[[noreturn]] static void die_stuck() {
  std::fputs("the simulation is stuck: somebody waits, and nothing is left to happen\n", stderr);
  std::abort();
}

void Scheduler::step() {
  if (!ready_.empty()) {
    io::Job job = std::move(ready_.front());
    ready_.pop_front();
    job();
    return;
  }
  if (waiting_.empty() && alarms_.empty()) die_stuck();
  // While something is under way only near alarms come early: no request takes minutes.
  const bool near = !alarms_.empty() && alarms_.begin()->first.first <= now_ + seconds(2);
  const bool alarm = waiting_.empty() || (near && rng_.one_in(alarm_rate_));
  if (alarm) {
    ring_alarm();
  } else {
    now_ += microseconds(rng_.below(200));
    const auto next = pick();
    next.resume();
  }
}

void Scheduler::ring_alarm() {
  const auto first = alarms_.begin();
  now_ = std::max(now_, first->first.first);
  io::Job action = std::move(first->second);
  alarms_.erase(first);
  action();
}

std::coroutine_handle<> Scheduler::pick() {
  uint64_t total = 0;
  for (const Waiter& waiter : waiting_) total += weight_[static_cast<size_t>(waiter.kind)];
  uint64_t at = rng_.below(total);
  size_t chosen = 0;
  while (at >= weight_[static_cast<size_t>(waiting_[chosen].kind)]) {
    at -= weight_[static_cast<size_t>(waiting_[chosen].kind)];
    ++chosen;
  }
  const auto handle = waiting_[chosen].handle;
  waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(chosen));
  return handle;
}

}  // namespace crash
