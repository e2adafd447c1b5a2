#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/core.h"
#include "io/ring_thread.h"
#include "tests/crash/database.h"
#include "tests/crash/image_run.h"
#include "tests/crash/replay.h"
#include "tests/support/command.h"

namespace crash {

/// The production engine over a simulated disk: a VM with two disks is backed up, full and then
/// incremental, and the power is cut at every event of start, seal and publish. After a restart
/// either every disk of the VM has the new restore point or none has.
///
/// SQLite runs on a real file in memory; each of its transactions is one event, durable at once.
class EngineRun {
 public:
  EngineRun(Campaign& campaign, uint64_t seed);
  ~EngineRun();

  std::optional<Failure> run();

 private:
  static constexpr size_t kDisks = 2;
  static constexpr size_t kJobs = 2;
  static constexpr uint64_t kDiskBytes = 512 << 10;
  class Process;
  class NoNode;
  struct Job {
    uint64_t begun = 0;
    uint64_t answered = ~uint64_t{0};  // the last `complete`, with 200
  };

  // Playing.
  io::Task<void> play(engine::Core& core);
  io::Task<void> back_up(engine::Core& core, World& world, Rng& rng, size_t number);
  io::Task<void> fill(engine::Core& core, World& world, Rng& rng, const engine::Job& job);

  // Judging.
  std::optional<Failure> judge_cuts();
  std::optional<std::string> judge(const State& state, uint64_t moment, bool go_on);
  std::optional<std::string> judge_points(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_point(World& world, const engine::Point& point,
                                         const Bytes& content);
  std::optional<std::string> judge_names(World& world);

  Campaign& campaign_;
  const uint64_t seed_;
  std::string catalogue_path_;
  io::RingRuntime ring_;  // nbd::Server wants one; nothing ever runs on it
  std::unique_ptr<World> world_;
  std::vector<DatabaseFiles> commits_;
  uint64_t registered_at_ = 0;  // events
  std::vector<Job> jobs_;
  std::vector<Bytes> content_;               // of each disk now
  std::vector<std::vector<Bytes>> history_;  // of each disk after each job
};

}  // namespace crash
