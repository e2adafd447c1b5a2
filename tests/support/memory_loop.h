// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "io/clock.h"
#include "io/executor.h"
#include "io/stream.h"
#include "io/sync.h"
#include "io/task_scope.h"

namespace support {

/// An executor and a clock without a kernel: time passes only when nobody has anything to do, and
/// then at once to the next alarm. The same input takes the same steps every time.
class MemoryLoop final : public io::Executor, public io::Clock {
 public:
  void resume_soon(io::Waiter& waiter) noexcept override { ready_.push(waiter); }
  void post(io::Job job) override { jobs_.push(std::move(job)); }
  bool here() const override { return true; }

  io::SteadyTime now() const override { return now_; }
  io::WallTime wall_time() const override { return io::WallTime(now_.time_since_epoch()); }
  std::unique_ptr<Alarm> call_at(io::SteadyTime due, io::Job action) override {
    return std::make_unique<Entry>(*this, due, std::move(action));
  }

  /// Turns until the task has ended; aborts the process when it waits for what never comes.
  void run(io::Task<void> task) {
    io::TaskScope scope;
    bool ended = false;
    scope.spawn(to_the_end(std::move(task), ended));
    while (!ended) turn();
  }

 private:
  struct Entry final : Alarm {
    Entry(MemoryLoop& of, io::SteadyTime due, io::Job action) : of(of), key(due, of.next_alarm_++) {
      of.alarms_.emplace(key, std::move(action));
    }
    ~Entry() override { of.alarms_.erase(key); }
    MemoryLoop& of;
    const std::pair<io::SteadyTime, uint64_t> key;
  };

  static io::Task<void> to_the_end(io::Task<void> task, bool& ended) {
    co_await std::move(task);
    ended = true;
  }
  void turn() {
    if (!ready_.empty()) {
      ready_.pop().handle.resume();
    } else if (!jobs_.empty()) {
      jobs_.pop()();
    } else if (!alarms_.empty()) {
      auto first = alarms_.extract(alarms_.begin());
      now_ = std::max(now_, first.key().first);
      first.mapped()();
    } else {
      std::fputs("memory loop: everybody waits for something that never comes\n", stderr);
      std::abort();
    }
  }

  io::WaiterQueue ready_;
  io::JobQueue jobs_;
  std::map<std::pair<io::SteadyTime, uint64_t>, io::Job> alarms_;
  uint64_t next_alarm_ = 0;
  io::SteadyTime now_{std::chrono::hours(1)};
};

/// A stream whose peer has said everything beforehand, in pieces of at most `piece_bytes`, and then
/// leaves. What is sent to it is kept.
class ScriptedStream final : public io::Stream {
 public:
  /// `aborted`, where given, says whether the server gave the connection up.
  ScriptedStream(io::Executor& executor, std::span<const std::byte> script, size_t piece_bytes,
                 std::vector<std::byte>& sent, bool* aborted = nullptr)
      : executor_(executor),
        script_(script),
        piece_bytes_(piece_bytes),
        sent_(sent),
        told_(aborted) {}

  io::Task<size_t> receive(std::span<const iovec> into) override {
    co_await io::NextTurn{executor_};
    if (aborted_) co_return 0;
    size_t left = std::min(piece_bytes_, script_.size()), count = 0;
    for (const iovec& room : into) {
      const size_t part = std::min(left, room.iov_len);
      if (part > 0) std::memcpy(room.iov_base, script_.data() + count, part);
      count += part;
      left -= part;
    }
    script_ = script_.subspan(count);
    co_return count;
  }
  io::Task<void> send(std::span<const iovec> from) override {
    co_await io::NextTurn{executor_};
    if (aborted_) throw std::system_error(EPIPE, std::generic_category(), "send to script");
    for (const iovec& piece : from) {
      const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
      sent_.insert(sent_.end(), bytes, bytes + piece.iov_len);
    }
  }
  io::Task<void> finish_sending() override { co_return; }
  void abort() noexcept override {
    aborted_ = true;
    if (told_ != nullptr) *told_ = true;
  }
  bool has_arrived() const override { return true; }
  std::string peer() const override { return "script"; }

 private:
  io::Executor& executor_;
  std::span<const std::byte> script_;
  size_t piece_bytes_;
  std::vector<std::byte>& sent_;
  bool* told_;
  bool aborted_ = false;
};

}  // namespace support
