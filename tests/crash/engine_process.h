// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/bring_up.h"
#include "engine/jobs/core.h"
#include "engine/restores.h"
#include "nbd/server.h"
#include "tests/crash/files.h"

/// One life of varve's engine on a simulated disk. Included by tests/crash only.
namespace crash {

class NoNode final : public engine::NodeClient {
 public:
  io::Task<engine::NodeAnswer> call(engine::NodeCall) override {
    co_return engine::NodeAnswer{.outcome = engine::NodeAnswer::Outcome::accepted};
  }
  void stop() override {}
};

class EngineProcess {
 public:
  static constexpr const char* kRepository = "/r";
  // One call fails at most, so the first try does it all; no pause between tries is longer.
  // Together they stay within a second, so that a job gets the name that one had in another life.
  static constexpr int kTries = 2;
  static constexpr auto kPause = std::chrono::milliseconds(400);

  using Reached = std::function<void(std::string_view step)>;
  EngineProcess(
      World& world, io::Ring& ring, const std::string& catalogue_path,
      Reached reached = [](std::string_view) {})
      : world_(world),
        server_(ring, exports_),
        core_(std::make_unique<engine::Core>(engine::EngineParts{.home = world.runtime(),
                                                                 .data = {world.runtime()},
                                                                 .server_thread = world.scheduler,
                                                                 .server = server_,
                                                                 .exports = exports_,
                                                                 .node = node_,
                                                                 .reached = std::move(reached)},
                                             options(catalogue_path))) {}

  engine::Core& core() { return *core_; }

  /// Up, and done with what the life before had promised: at the first try, or at a later one.
  io::Task<void> come_up() {
    co_await engine::bring_up(*core_);
    for (int tries = 0; tries < kTries; ++tries) {
      co_await io::sleep(world_.scheduler, world_.scheduler, kPause);
      const auto try_again = [this](io::TaskScope& scope) -> io::Task<void> {
        core_->unfinished.try_again(*core_, scope);
        co_return;
      };
      co_await io::run_scoped(try_again);
      engine::RestorePauses none;
      co_await engine::look_after_restores(*core_, none);
    }
  }

  /// What runs in the background comes to its end, and the catalogue is closed.
  void end() {
    world_.scheduler.run(core_->restores.stop());
    world_.scheduler.run(core_->background.join());
    world_.scheduler.run(core_->ports.join());
    core_.reset();
  }

 private:
  static engine::EngineOptions options(const std::string& catalogue_path) {
    engine::EngineOptions options;
    options.version = "test";
    options.pid = 1;
    options.catalogue_path = catalogue_path;
    options.repository_path = kRepository;
    options.targets = engine::TargetsMode::names;
    options.named_secrets["vc1"] = {.username = "reader", .password = "secret"};
    options.node_url = "";
    options.space_reserve_bytes = 0;
    options.retry_interval = std::chrono::milliseconds(5);
    return options;
  }

  World& world_;
  NoNode node_;
  nbd::ExportTable exports_;
  nbd::Server server_;
  std::unique_ptr<engine::Core> core_;
};

}  // namespace crash
