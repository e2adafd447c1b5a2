// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>

#include "engine/repository/sidecar.h"
#include "engine/values/digest.h"
#include "engine/values/layout.h"
#include "qcow/chain/layer.h"
#include "qcow/check/check.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"
#include "tests/crash/manifest.h"

namespace crash {

namespace {

constexpr uint64_t kDrawsAnEvent = 2;
constexpr uint64_t kJudgedEvery = 4;        // draws: many runs tell more than every draw of a few
constexpr uint64_t kCutRecoveryEvery = 25;  // states
constexpr uint64_t kCutsOfRecovery = 6;     // about
constexpr uint64_t kOldCatalogueEvery = 25;

Faults fault_of_recovery(Rng& rng) {
  using Call = Faults::Call;
  constexpr std::array kCalls = {Call::sync, Call::write, Call::read, Call::rename, Call::remove};
  Faults faults;
  faults.call = kCalls[rng.below(kCalls.size())];
  faults.at = rng.below(6);
  faults.error = EIO;
  return faults;
}

std::string as_text(const Bytes& bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

std::optional<Failure> EngineRun::judge_cuts() {
  const Parts parts(world_->disk.live());
  Replay replay(world_->disk.start(), world_->disk.log());
  for (;; replay.advance()) {
    for (uint64_t draw = 0; draw < kDrawsAnEvent && replay.position() >= registered_at_; ++draw) {
      const uint64_t number = replay.position() * kDrawsAnEvent + draw;
      const std::string name = std::to_string(number);
      const std::string& only = campaign_.only_cut;
      if (!only.empty() && only != name && !only.starts_with(name + "/")) continue;
      Rng rng(seed_of(seed_of(seed_, 9), number));
      if (!rng.one_in(kJudgedEvery) && only.empty()) continue;
      std::string told;
      const State state = replay.build(rng, parts, told);
      if (auto failure = judge_cut(state, number, rng)) {
        failure->what += fmt::format("; after {} events, {}", replay.position(), told);
        return failure;
      }
    }
    if (replay.at_end()) return std::nullopt;
  }
}

std::optional<Failure> EngineRun::judge_cut(const State& state, uint64_t number, Rng& rng) {
  ++campaign_.states;
  const uint64_t moment = Disk::last_moment(number / kDrawsAnEvent);
  const bool go_on = rng.one_in(10);
  const bool cut_recovery = rng.one_in(kCutRecoveryEvery) || !campaign_.only_cut.empty();
  if (const auto wrong = judge(state, moment, go_on)) {
    return Failure{*wrong, std::to_string(number)};
  }
  if (rng.one_in(kOldCatalogueEvery)) {
    if (const auto wrong = judge_old_catalogue(state, moment, rng)) {
      return Failure{*wrong, std::to_string(number)};
    }
  }
  return cut_recovery ? judge_cut_recovery(state, number, rng) : std::nullopt;
}

/// The power is cut once more while the new process comes up.
std::optional<Failure> EngineRun::judge_cut_recovery(const State& state, uint64_t number,
                                                     Rng& rng) {
  const std::vector<DatabaseFiles> commits = commits_;
  commits_.resize(state.catalogue);
  restore_database(catalogue_path_, commits_.empty() ? DatabaseFiles{} : commits_.back());
  World world(state, rng.next());
  {
    const CommitWatch watch([&] {
      commits_.push_back(read_database(catalogue_path_));
      world.disk.catalogue_committed();
    });
    if (rng.one_in(2)) world.files.faults = fault_of_recovery(rng);
    EngineProcess process(world, ring_.ring(), catalogue_path_);
    try {
      world.scheduler.run(process.come_up());
    } catch (const std::exception& failure) {
      if (!world.files.faults.has_struck) throw;
    }
    process.end();
  }
  const Parts parts(world.disk.live());
  Replay replay(state, world.disk.log());
  const uint64_t rate = std::max<uint64_t>(1, world.disk.log().size() / kCutsOfRecovery);
  const uint64_t moment = Disk::last_moment(number / kDrawsAnEvent);
  std::optional<Failure> failure;
  for (; !failure; replay.advance()) {
    const std::string name = fmt::format("{}/{}", number, replay.position());
    std::string told;
    const State again = replay.build(rng, parts, told);
    const bool drawn = rng.one_in(rate);
    const bool wanted = campaign_.only_cut.empty() ? drawn : campaign_.only_cut == name;
    if (wanted) {
      ++campaign_.states;
      ++campaign_.judged["cut off again"];
      if (const auto wrong = judge(again, moment, false)) {
        failure = Failure{fmt::format("{}; cut off again after {} events of the recovery, {}",
                                      *wrong, replay.position(), told),
                          name};
      }
    }
    if (replay.at_end()) break;
  }
  commits_ = commits;
  return failure;
}

/// A new process comes up on the disk; sometimes it goes on to the next backup.
std::optional<std::string> EngineRun::judge(const State& state, uint64_t moment, bool go_on) {
  restore_database(catalogue_path_,
                   state.catalogue == 0 ? DatabaseFiles{} : commits_[state.catalogue - 1]);
  World world(state);
  EngineProcess process(world, ring_.ring(), catalogue_path_);
  std::optional<std::string> wrong;
  try {
    world.scheduler.run(process.come_up());
    const std::string unavailable = process.core().availability.cause("1");
    if (!unavailable.empty()) wrong = "BAD: the repository is unavailable: " + unavailable;
    if (!wrong) wrong = judge_points(world, process.core(), moment);
    if (!wrong) wrong = judge_recovery(world, process.core(), moment);
    if (!wrong) wrong = judge_names(world, process.core());
    if (!wrong) wrong = judge_deletion(world, process.core(), moment);
    const std::vector<engine::Job> kept = process.core().catalogue->jobs.kept_jobs();
    if (!wrong && !kept.empty() && !go_on) {
      ++campaign_.judged["resumed"];
      world.scheduler.run(go_on_with(process.core(), world, kept.front().id));
      wrong = judge_points(world, process.core(), moment);
      if (!wrong) wrong = judge_names(world, process.core());
      if (!wrong && process.core().catalogue->points.list("1").size() != kJobs * kDisks) {
        wrong = "LOST: what was resumed has not become a point";
      }
    }
    if (!wrong) wrong = judge_proofs(world, process.core(), moment);
    const bool goes_on = !wrong && go_on;
    Rng dice(seed_of(seed_of(seed_, 17), moment));
    if (goes_on) wrong = judge_verification(world, process.core(), dice);
    const size_t points = process.core().catalogue->points.list("1").size() / kDisks;
    if (!wrong && go_on && points > 0) {
      const std::vector<Bytes> content = content_;
      const std::vector<Job> jobs = jobs_;
      Rng rng(seed_of(seed_, moment));
      world.scheduler.run(back_up(process.core(), world, rng, points));
      content_ = content;
      jobs_ = jobs;
      const size_t now = process.core().catalogue->points.list("1").size() / kDisks;
      if (now != points + 1) wrong = "the next backup does not become a point";
    }
  } catch (const std::exception& failure) {
    wrong = fmt::format("BAD: the engine: {}", failure.what());
  }
  std::vector<engine::Point> points;
  if (!wrong && go_on) points = process.core().catalogue->points.list("1");
  process.end();
  if (!wrong && go_on) wrong = judge_rebuild(world, points);
  return wrong;
}

std::optional<std::string> EngineRun::judge_points(World& world, engine::Core& core,
                                                   uint64_t moment) {
  size_t promised = 0, possible = 0;
  for (const Job& job : jobs_) {
    promised += job.decided <= moment ? 1 : 0;
    possible += job.begun <= moment ? 1 : 0;
  }
  promised -= deletion_.begun <= moment ? 1 : 0;
  possible -= deletion_.answered <= moment ? 1 : 0;
  std::map<uint32_t, std::vector<engine::Point>> disks;
  for (engine::Point& point : core.catalogue->points.list("1")) {
    disks[point.disk_index].push_back(std::move(point));
  }
  for (uint32_t disk = 0; disk < kDisks; ++disk) {
    if (disks[disk].size() != disks[0].size()) return "BAD: one disk has a point, another has not";
  }
  const size_t points = disks[0].size();
  if (points < promised) return "LOST: a backup that was promised is gone";
  if (points > possible) return "BAD: a point of a backup that never was";
  for (uint32_t disk = 0; disk < kDisks; ++disk) {
    for (size_t i = 0; i < points; ++i) {
      if (auto wrong = judge_point(world, disks[disk][i], history_[disk][i])) return wrong;
    }
  }
  return std::nullopt;
}

std::optional<std::string> EngineRun::judge_point(World& world, const engine::Point& point,
                                                  const Bytes& content) {
  const Node* const image = world.disk.find(point.image_path);
  const Node* const sidecar = world.disk.find(engine::sidecar_path(point.image_path));
  if (image == nullptr) return fmt::format("LOST: {} is gone", point.image_path);
  if (sidecar == nullptr) return fmt::format("LOST: the sidecar of {} is gone", point.image_path);
  if (world.disk.size(image->file) != point.file_bytes) return "BAD: the image's length is wrong";
  const auto check =
      world.scheduler.run(qcow::check(world.runtime(), point.image_path, qcow::CheckOptions()));
  if (!check.clean()) return fmt::format("BAD: {}", check.findings.front());
  const auto read_header = [&]() -> io::Task<qcow::Header> {
    const auto file = co_await world.files.open(point.image_path, io::OpenMode::read_only);
    co_return co_await qcow::read_header(*file, "image");
  };
  const qcow::Header header = world.scheduler.run(read_header());
  if (!header.sealed() || !header.record) return "BAD: a published image is not sealed";
  if (engine::sha256(as_text(world.disk.content(sidecar->file))) != header.record->manifest_hash) {
    return "BAD: the sidecar is not the one of the image";
  }
  if (read_disk(world, point.image_path) != content) return "LOST: a point's content is wrong";
  return judge_manifest_of(world, point, as_text(world.disk.content(sidecar->file)));
}

/// It is the one that the sidecar names, and the image is what it says.
std::optional<std::string> EngineRun::judge_manifest_of(World& world, const engine::Point& point,
                                                        std::string_view sidecar) {
  const std::string path = engine::sums_path(point.image_path);
  const Node* const sums = world.disk.find(path);
  if (sums == nullptr) return fmt::format("LOST: {} is gone", path);
  const std::string hash = engine::to_hex(engine::sha256(as_text(world.disk.content(sums->file))));
  if (engine::decode_sidecar(sidecar).disk.sums_sha256 != hash) {
    return fmt::format("LOST: {} is not what was published", path);
  }
  Rng rng(seed_of(seed_, sums->file));
  return judge_manifest(world, point.image_path, path, rng);
}

}  // namespace crash
