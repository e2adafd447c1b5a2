// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <coroutine>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "io/clock.h"
#include "io/executor.h"
#include "io/task_scope.h"
#include "tests/crash/rng.h"

namespace crash {

/// Who waits for the seed to let it go on.
enum class Turn : uint8_t { read, write, sync, name, client, wire };

/// One thread and its time, decided by a seed: everything that takes time in reality (an I/O, a
/// message, a client's next step) waits in turn(), and the seed says who goes on next.
///
/// Code between two turns runs as on a ring: what is ready runs first, in the order of calls. The
/// clock goes a little further with every turn, and jumps to an alarm now and then.
class Scheduler final : public io::Executor, public io::Clock {
 public:
  explicit Scheduler(uint64_t seed);
  /// For judges: nobody waits, everything happens at once.
  static Scheduler immediate() { return Scheduler(); }
  Scheduler(const Scheduler&) = delete;
  ~Scheduler() override;

  void resume_soon(io::Waiter& waiter) noexcept override;
  void post(io::Job job) override { ready_.push_back(std::move(job)); }
  bool here() const override { return true; }

  io::SteadyTime now() const override { return now_; }
  io::WallTime wall_time() const override;
  std::unique_ptr<Alarm> call_at(io::SteadyTime due, io::Job action) override;

  /// `co_await scheduler.turn(kind)`: goes on when the seed says so.
  auto turn(Turn kind) {
    struct Awaiter {
      Scheduler& scheduler;
      Turn kind;
      bool await_ready() const noexcept { return scheduler.immediate_; }
      void await_suspend(std::coroutine_handle<> waiter) {
        scheduler.waiting_.push_back({waiter, kind});
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this, kind};
  }

  /// Runs until the task has ended; returns its result or throws its failure. Ends the program
  /// when nothing is left to happen before that: somebody waits for ever.
  template <class T>
  T run(io::Task<T> task) {
    std::optional<T> result;
    auto keep = [&]() -> io::Task<void> { result.emplace(co_await std::move(task)); };
    run_to_end(keep());
    return std::move(*result);
  }
  void run(io::Task<void> task) { run_to_end(std::move(task)); }

  Rng& rng() { return rng_; }

 private:
  class SimAlarm;
  using AlarmKey = std::pair<io::SteadyTime, uint64_t>;
  struct Waiter {
    std::coroutine_handle<> handle;
    Turn kind;
  };
  static constexpr size_t kTurns = 6;

  Scheduler() : Scheduler(0) { immediate_ = true; }
  void run_to_end(io::Task<void> task);
  void step();
  void ring_alarm();
  std::coroutine_handle<> pick();

  Rng rng_;
  bool immediate_ = false;
  std::array<uint32_t, kTurns> weight_{};  // how eager each kind is, for this seed
  uint64_t alarm_rate_ = 32;
  io::SteadyTime now_{};
  std::deque<io::Job> ready_;
  std::vector<Waiter> waiting_;
  std::map<AlarmKey, io::Job> alarms_;
  uint64_t alarms_ever_ = 0;
};

}  // namespace crash
