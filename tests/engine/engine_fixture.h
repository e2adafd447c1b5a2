// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine_impl.h"
#include "engine/values/names.h"
#include "io/call_on.h"
#include "io/ring_thread.h"
#include "tests/support/command.h"
#include "tests/support/faulty_file_system.h"

namespace engine_test {

using namespace engine;

/// A node that answers what the test says, on the control thread.
class FakeNode final : public NodeClient {
 public:
  io::Task<NodeAnswer> call(NodeCall call) override {
    calls.push_back(call);
    if (during_call) during_call(call);
    if (answer_after) co_await answer_after();
    co_return answer;
  }
  void stop() override {}

  NodeAnswer answer{.outcome = NodeAnswer::Outcome::accepted, .status = 200};
  std::function<void(const NodeCall&)> during_call;
  std::function<io::Task<void>()> answer_after;
  std::vector<NodeCall> calls;
};

/// Keeps what it is told.
class KeptNotifications final : public Notifier {
 public:
  void notify(Notification notification) noexcept override {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(notification));
  }
  std::vector<DeliveryCount> deliveries() const override { return {{"url", "delivered", 7}}; }

  /// Those of one kind, so far.
  std::vector<Notification> of(NotificationEvent event) const {
    const std::lock_guard lock(mutex_);
    std::vector<Notification> found;
    for (const Notification& one : all_) {
      if (one.event == event) found.push_back(one);
    }
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Notification> all_;
};

/// A clock whose wall time a test can hold still, so that a second comes again.
class HeldClock final : public io::Clock {
 public:
  explicit HeldClock(io::Clock& below) : below_(below) {}
  void hold(Time at) { held_ = at.time_since_epoch().count(); }
  void release() { held_ = 0; }

  io::SteadyTime now() const override { return below_.now(); }
  io::WallTime wall_time() const override {
    return held_ == 0 ? below_.wall_time() : io::WallTime(std::chrono::seconds(held_));
  }
  std::unique_ptr<Alarm> call_at(io::SteadyTime due, io::Job action) override {
    return below_.call_at(due, std::move(action));
  }

 private:
  io::Clock& below_;
  std::atomic<int64_t> held_ = 0;  // seconds since 1970; 0: it goes
};

/// One engine with real rings, images, exports and listeners, in a directory of its own.
class Hub {
 public:
  explicit Hub(std::string directory, std::function<void(EngineOptions&)> adjust = {});
  ~Hub() { stop(); }

  void start() { impl->start(); }
  void stop();

  io::Runtime home() { return control_->runtime(); }

  /// Runs on the ring of the exports.
  template <class MakeTask>
  auto on_data(MakeTask make_task) {
    return io::call_and_wait(data_->ring(), std::move(make_task));
  }

  std::string directory;
  FakeNode node;
  KeptNotifications told;
  std::unique_ptr<HeldClock> clock;  ///< the control thread's
  /// Told of every step, on the control thread.
  std::function<void(std::string_view)> reached = [](std::string_view) {};
  nbd::ExportTable exports;
  /// Asked before each call on an image's file; set them on the data thread (on_data).
  support::FileFaults faults;
  std::unique_ptr<EngineImpl> impl;

 private:
  std::unique_ptr<io::RingThread> control_, data_;
  std::unique_ptr<support::FaultyFileSystem> data_files_;
  std::unique_ptr<nbd::Server> server_;
};

/// What a client does to one export, without the wire.
class Writer {
 public:
  Writer(Hub& hub, const std::string& export_name);
  ~Writer();
  /// Opens a connection; false when it is refused.
  bool connect();
  void disconnect();
  void write(uint64_t offset, const std::string& bytes);

 private:
  Hub& hub_;
  std::shared_ptr<nbd::Export> export_;
  std::optional<nbd::ConnectionPlace> place_;
};

class EngineTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kDiskBytes = 1 << 20;
  static constexpr const char* kUuid = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d";

  void SetUp() override { restart(); }
  void TearDown() override { hub.reset(); }

  /// A new engine on the same directory; `adjust` changes its options.
  void restart(std::function<void(EngineOptions&)> adjust = {});
  Engine& engine() { return *hub->impl; }

  void register_vm(const std::string& name, size_t disk_count = 2,
                   uint64_t disk_bytes = kDiskBytes);
  BackupView start(const std::string& vm_name, BackupType type = BackupType::full,
                   const std::string& repository = "1");
  /// Connects to every disk, writes `bytes` at the start of each and completes it.
  void fill(const BackupView& backup, const std::string& bytes, int serial);
  CompletedDisk complete(const BackupView& backup, uint32_t disk, const std::string& change_id);
  /// start() and fill().
  BackupView back_up(const std::string& vm_name, BackupType type, const std::string& bytes,
                     int serial);
  static std::string change_id(uint32_t disk, int serial) {
    return std::string(kUuid) + std::to_string(disk) + "/" + std::to_string(serial);
  }

  /// The code word of the refusal that `action` ends in; "" when it does not.
  template <class Action>
  static std::string refusal_of(Action action) {
    try {
      action();
      return "";
    } catch (const Refusal& refusal) {
      return refusal.code;
    }
  }

  /// All files of the repository, relative, sorted; without varve's lock and marker.
  std::vector<std::string> repository_files() const;
  std::string state_of(const std::string& backup_id) {
    return std::string(to_text(engine().backup(backup_id).job.state));
  }
  /// Nothing of any job is left: no port, no export, no unpublished file.
  void expect_nothing_left();
  static bool wait_until(const std::function<bool()>& condition,
                         std::chrono::milliseconds patience = std::chrono::seconds(10));

  support::TempDir temp;
  std::unique_ptr<Hub> hub;
};

/// A free range of ports, different for tests that run at the same time.
PortNumbers free_ports(uint16_t count);

}  // namespace engine_test
