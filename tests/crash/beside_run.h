// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "io/ring_thread.h"
#include "tests/crash/image_run.h"

namespace crash {

/// Calls of the production engine beside each other, in turns that the seed decides: two VMs are
/// backed up, backups are cancelled and deleted, VMs are registered anew. In some runs a call or a
/// transaction fails once, the repository turns read-only or goes for a while, or its file system
/// knows no rename that replaces nothing.
///
/// Afterwards a new process comes up: no published point is lost, no file is without an owner, and
/// chain.json says what the catalogue says. Without trouble no call fails for an internal reason.
class BesideRun {
 public:
  BesideRun(Campaign& campaign, uint64_t seed);
  ~BesideRun();

  std::optional<Failure> run();

 private:
  static constexpr size_t kDisks = 2;
  static constexpr uint64_t kDiskBytes = 64 << 10;
  static constexpr const char* kRepository = "/r";
  enum class Trouble : uint8_t { none, call, commit, read_only, gone };
  using Contents = std::vector<Bytes>;  // by disk

  // Playing.
  io::Task<void> play(engine::Core& core);
  io::Task<void> register_vm(engine::Core& core, std::string vm);
  io::Task<void> back_up_often(engine::Core& core, std::string vm, uint64_t seed);
  io::Task<void> back_up(engine::Core& core, std::string vm, Rng& rng);
  io::Task<void> fill(engine::Core& core, const engine::Job& job, Contents& contents, Rng& rng);
  io::Task<void> complete(engine::Core& core, engine::Job job, Contents contents);
  io::Task<void> delete_often(engine::Core& core, uint64_t seed);
  io::Task<void> register_often(engine::Core& core, uint64_t seed);
  io::Task<void> make_trouble(uint64_t seed);
  io::Task<void> pause(Rng& rng, uint64_t turns_max);
  io::Task<void> attempt(io::Task<void> call, std::string what);

  // Judging.
  std::optional<std::string> judge(engine::Core& core);
  std::optional<std::string> judge_point(engine::Core& core, const std::string& job_id,
                                         const Contents& contents);
  std::optional<std::string> judge_jobs(engine::Core& core);
  std::optional<std::string> judge_chain_files(engine::Core& core);
  std::optional<std::string> judge_names();
  bool leads_to_owned(const std::string& target) const;
  std::string text_of(const std::string& path);

  Campaign& campaign_;
  const uint64_t seed_;
  std::string catalogue_path_;
  io::RingRuntime ring_;
  std::unique_ptr<World> world_;
  Trouble trouble_ = Trouble::none;
  bool trouble_has_come_ = false;
  uint64_t commits_until_trouble_ = 0;
  bool playing_ = false;                       // callers are at work
  std::map<std::string, Contents> published_;  // by job
  std::set<std::string> doomed_;               // whoever deletes them has asked to
  std::set<std::string> owned_;                // files that something stands for
  std::string complaint_;
};

}  // namespace crash
