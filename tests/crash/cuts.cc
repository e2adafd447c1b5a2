// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "qcow/check/check.h"
#include "tests/crash/image_run.h"
#include "tests/crash/manifest.h"
#include "tests/crash/other_checker.h"

namespace crash {

namespace {

constexpr uint64_t kOpeningEvents = 40;  // of a run
constexpr uint64_t kDrawsMax = 16;       // states at one event, at most
constexpr int kGenerationsMax = 2;       // a recovery's recovery is cut too
constexpr uint64_t kGoOnEvery = 60;      // states
constexpr size_t kOpsOfSequel = 25;

uint64_t hash_of(const Bytes& bytes) {
  uint64_t state = bytes.size();
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, 8);
    state = (state ^ word) * 0x9fb21c651e98df25;
    state ^= state >> 32;
  }
  return state;
}

}  // namespace

std::string ImageRun::cut_name(uint64_t number) const {
  return cut_so_far_ + std::to_string(number);
}

/// Whether only_cut names this cut, or one that comes after it.
bool ImageRun::wanted(uint64_t number) const {
  const std::string& only = campaign_.only_cut;
  const std::string name = cut_name(number);
  return only.empty() || only == name || only.starts_with(name + "/");
}

std::optional<Failure> ImageRun::judge_cuts() {
  const std::vector<Event>& log = world_->disk.log();
  const Parts parts(world_->disk.live());
  Replay replay(world_->disk.start(), log);
  uint64_t states_wanted = campaign_.states_a_run;
  if (generation_ > 0) states_wanted /= 8;
  // How many states each event gets, on the average.
  const uint64_t per_mille = std::max<uint64_t>(1, states_wanted * 1000 / (log.size() + 1));
  for (;;) {
    Rng rng(seed_of(seed_of(seed_, 5), replay.position()));
    uint64_t draws = per_mille / 1000 + (rng.below(1000) < per_mille % 1000 ? 1 : 0);
    // Opening, recovery and the end are where it matters most.
    const bool opening = replay.position() < kOpeningEvents;
    if (opening || replay.at_end()) draws += generation_ == 0 ? 2 : rng.below(2);
    draws = std::min(draws, kDrawsMax);
    for (uint64_t draw = 0; draw < draws && replay.position() >= exists_from_; ++draw) {
      const uint64_t number = replay.position() * kDrawsMax + draw;
      if (!wanted(number)) continue;
      if (auto failure = judge_cut(replay, parts, number)) return failure;
    }
    if (replay.at_end()) return std::nullopt;
    replay.advance();
  }
}

std::optional<Failure> ImageRun::judge_cut(const Replay& replay, const Parts& parts,
                                           uint64_t number) {
  Rng rng(seed_of(seed_of(seed_, 6), number));
  std::string told;
  const State state = replay.build(rng, parts, told);
  const bool replaying = !campaign_.only_cut.empty();
  if (!replaying && seen_before(state, replay.position())) return std::nullopt;
  ++campaign_.states;
  Bytes found;
  if (const auto wrong = judge_state(state, replay.position(), found)) {
    if (replaying) print_log(replay.position(), parts);
    return Failure{fmt::format("{}; after {} events, {}", *wrong, replay.position(), told),
                   cut_name(number)};
  }
  if (campaign_.other_checker_every > 0 && campaign_.states % campaign_.other_checker_every == 0) {
    ++campaign_.other_checks;
    if (const auto wrong = ask_other_checker(state)) return Failure{*wrong, cut_name(number)};
  }
  if (generation_ >= kGenerationsMax || !(replaying || rng.one_in(kGoOnEvery))) return {};
  World published(state);
  if (is_published(published, kPath)) return {};  // nobody writes to it any more
  Shape shape = shape_;
  shape.made_in_run = shape.over_nbd = false;
  shape.faults.call.reset();
  const uint64_t seed = seed_of(seed_, number);
  ImageRun sequel(campaign_, seed, shape, script_of_seed(seed, shape, kOpsOfSequel), state,
                  std::move(found), cut_name(number) + "/", generation_ + 1);
  sequel.sent_below_ = sent_below_;
  return sequel.run();
}

bool ImageRun::seen_before(const State& state, uint64_t cut) {
  const Bytes* const file = state.find(kPath);
  const Bytes* const sums = state.find(manifest_path(kPath));
  const uint64_t hash =
      (file == nullptr ? 0 : hash_of(*file)) + (sums == nullptr ? 0 : 3 * hash_of(*sums));
  return !seen_.insert({hash, model_->promises(Disk::last_moment(cut))}).second;
}

/// For whoever replays a failure: what happened on the disk, up to a while after the cut.
void ImageRun::print_log(size_t cut, const Parts& parts) const {
  static constexpr const char* kKinds[] = {"write",        "truncate",   "grow",     "names",
                                           "sync",         "sync names", "done",     "failed",
                                           "dropped sync", "directory",  "catalogue"};
  static constexpr const char* kParts[] = {"data",           "header", "refcount table",
                                           "refcount block", "L1",     "L2"};
  const std::vector<Event>& log = world_->disk.log();
  for (size_t i = 0; i < std::min(log.size(), cut + 20); ++i) {
    const Event& event = log[i];
    std::string what;
    if (event.kind == Event::Kind::write) {
      const auto part = static_cast<size_t>(parts.at(event.file, event.offset));
      what = fmt::format("{}-{} {}", event.offset, event.end, kParts[part]);
    }
    fmt::print("{}{:6} {} #{} {}\n", i == cut ? "---- cut\n" : "", i,
               kKinds[static_cast<size_t>(event.kind)], event.operation, what);
  }
  for (const std::string& line : trace_) fmt::print("{}\n", line);
}

std::optional<std::string> ImageRun::judge_state(const State& state, uint64_t cut, Bytes& found) {
  if (state.find(kPath) == nullptr) return "LOST: the image has no name any more";
  World world(state);
  try {
    return judge_and_recover(world, cut, found);
  } catch (const std::exception& failure) {
    return fmt::format("BAD: {}", failure.what());
  }
}

std::optional<std::string> ImageRun::judge_and_recover(World& world, uint64_t cut, Bytes& found) {
  if (is_published(world, kPath)) return judge_published(world, cut, found);
  if (published_at_ <= Disk::last_moment(cut)) return "LOST: the image is not published any more";
  const auto check = [&] {
    return world.scheduler.run(qcow::check(world.runtime(), kPath, qcow::CheckOptions()));
  };
  const qcow::CheckResult result = check();
  if (result.corruptions > 0 || result.shared_clusters > 0) {
    return fmt::format("BAD: {}", result.findings.front());
  }
  const bool publishes = shape_.publishes && campaign_.states % 2 == 0;
  world.scheduler.run(recover(world, publishes, found));
  if (auto wrong = model_->judge(found, Disk::last_moment(cut))) return wrong;
  const qcow::CheckResult after = check();
  if (!after.clean() || after.shared_clusters > 0) {
    return fmt::format("BAD after the recovery: {}", after.findings.front());
  }
  return publishes ? judge_published(world, cut, found) : std::nullopt;
}

/// Recovers the image, and reads it. It ends closed, or published.
io::Task<void> ImageRun::recover(World& world, bool publishes, Bytes& found) {
  const std::string sums = manifest_path(kPath);
  if (publishes && world.disk.find(sums) != nullptr) co_await world.files.remove(sums);
  const auto image = co_await qcow::Image::open(world.runtime(), kPath, shape_.options);
  found.resize(image->size());
  std::exception_ptr failure;
  try {
    co_await image->read(0, found);
    if (publishes) {
      co_await image->seal();
      co_await image->publish_header({}, 1);
    }
    co_await image->close();
  } catch (...) {
    failure = std::current_exception();
  }
  co_await image->abandon();
  if (failure) std::rethrow_exception(failure);
}

/// It holds all that was acknowledged, and is what its manifest says.
std::optional<std::string> ImageRun::judge_published(World& world, uint64_t cut, Bytes& found) {
  ++campaign_.published_states;
  const qcow::CheckResult check =
      world.scheduler.run(qcow::check(world.runtime(), kPath, qcow::CheckOptions()));
  if (!check.clean() || check.shared_clusters > 0) {
    return fmt::format("BAD, published: {}", check.findings.front());
  }
  found = read_disk(world, kPath);
  if (auto wrong = model_->judge(found, Disk::last_moment(cut))) return wrong;
  Rng rng(seed_of(seed_of(seed_, 15), cut));
  return judge_manifest(world, kPath, manifest_path(kPath), rng);
}

}  // namespace crash
