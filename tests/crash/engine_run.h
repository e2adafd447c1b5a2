// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "io/ring_thread.h"
#include "tests/crash/database.h"
#include "tests/crash/image_run.h"
#include "tests/crash/replay.h"
#include "tests/support/command.h"

namespace crash {

/// The production engine over a simulated disk: a VM with two disks is backed up, full and then
/// incremental, and the power is cut at some events of start, seal and publish. After a restart
/// every disk of the VM has the new restore point when the catalogue held the decision, and none
/// has before. Some restarts meet a call that fails, and are cut off too, at any event of the
/// recovery. In half of the runs the incremental is interrupted, kept and resumed, and a restart
/// that finds it interrupted goes on with it. An older copy of the catalogue, of any moment, harms
/// no published image, and a rebuild on it knows them all.
///
/// After each job all points are verified. The file that remembers a proof is the old one, the new
/// one or not there, whenever the power is cut; a catalogue that is made anew from the files tells
/// of the same points and proofs. A verification after the restart finds them sound, and finds what
/// is damaged then.
///
/// Then the first point is restored: overlays, writes that are flushed, a promotion of both disks,
/// and the drop. What was flushed is there until the drop; the promoted disks are there together or
/// not at all; nothing else is left over. At last the newest backup is deleted: its rows and its
/// files are there together or not at all.
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
  struct Job {
    uint64_t begun = 0;
    uint64_t decided = ~uint64_t{0};  // the catalogue says that it will be published
  };

  /// Moments at which something of the restore was answered for.
  struct Recovery {
    uint64_t flushed = ~uint64_t{0}, promoted = ~uint64_t{0}, dropped = ~uint64_t{0};
    std::vector<Bytes> content;  // of its disks, once flushed
  };

  struct Deletion {
    uint64_t begun = ~uint64_t{0}, answered = ~uint64_t{0};  // moments
    std::string job_id;
  };

  /// What verifications have left beside an image, oldest first.
  struct Proof {
    uint64_t moment = 0;  // from then on it is there
    std::string image_id, text;
  };

  // Playing.
  io::Task<void> play(engine::Core& core);
  io::Task<void> back_up(engine::Core& core, World& world, Rng& rng, size_t number);
  io::Task<void> fill(engine::Core& core, World& world, Rng& rng, const engine::Job& job);
  io::Task<void> complete_all(engine::Core& core, engine::Job job, size_t number);

  // engine_resume.cc
  void take_snapshot(Rng& rng);
  io::Task<void> back_up_in_parts(engine::Core& core, Rng& rng);
  io::Task<void> go_on_with(engine::Core& core, World& world, std::string job_id);
  io::Task<void> send(World& world, io::BlockDevice& device, size_t disk, uint64_t offset,
                      uint64_t length);
  io::Task<void> send_missing(engine::Core& core, World& world, const engine::JobDisk& disk,
                              size_t pieces);

  io::Task<engine::Verification> verify(engine::Core& core, World& world);
  io::Task<void> verify_and_note(engine::Core& core);
  io::Task<void> recover(engine::Core& core);
  io::Task<void> delete_newest(engine::Core& core);
  io::Task<void> write_to_overlay(engine::Core& core, Rng& rng, const std::string& name);

  // Judging.
  std::optional<Failure> judge_cuts();
  std::optional<Failure> judge_cut(const State& state, uint64_t number, Rng& rng);
  std::optional<std::string> judge(const State& state, uint64_t moment, bool go_on);
  std::optional<Failure> judge_cut_recovery(const State& state, uint64_t number, Rng& rng);
  std::optional<std::string> judge_old_catalogue(const State& state, uint64_t moment, Rng& rng);
  void use_old_catalogue(World& world, uint64_t moment, bool back_up_too);
  std::optional<std::string> judge_rebuild_on_old(const State& state, World& world);
  std::optional<std::string> judge_deletion(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_points(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_point(World& world, const engine::Point& point,
                                         const Bytes& content);
  std::optional<std::string> judge_manifest_of(World& world, const engine::Point& point,
                                               std::string_view sidecar);
  std::optional<std::string> judge_proofs(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_torn_proofs() const;
  std::optional<std::string> judge_verification(World& world, engine::Core& core, Rng& rng);
  std::optional<std::string> judge_rebuild(World& world, const std::vector<engine::Point>& points);
  std::optional<std::string> judge_names(World& world, engine::Core& core);
  std::optional<std::string> judge_recovery(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_overlays(World& world, engine::Core& core, uint64_t moment);
  std::optional<std::string> judge_promoted(World& world, engine::Core& core, uint64_t moment);

  Campaign& campaign_;
  const uint64_t seed_;
  std::string catalogue_path_;
  io::RingRuntime ring_;  // nbd::Server wants one; nothing ever runs on it
  std::unique_ptr<World> world_;
  std::vector<DatabaseFiles> commits_;
  uint64_t registered_at_ = 0;      // events
  size_t commits_of_register_ = 0;  // how many make the VM known
  std::vector<Job> jobs_;
  std::vector<Bytes> content_;               // of each disk now
  std::vector<std::vector<Bytes>> history_;  // of each disk after each job
  /// What of each disk the backup in parts sends, as it is in content_.
  std::vector<std::vector<engine::Coverage::Range>> snapshot_;
  Recovery recovery_;
  Deletion deletion_;
  std::map<std::string, std::vector<Proof>> proofs_;  // by the path of the file
};

}  // namespace crash
