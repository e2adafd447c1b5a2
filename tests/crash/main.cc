// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "io/log.h"
#include "io/planted_bug.h"
#include "tests/crash/beside_run.h"
#include "tests/crash/campaign.h"
#include "tests/crash/damage_run.h"
#include "tests/crash/engine_run.h"

/// crash_tests [gtest's options]
/// crash_tests --seed N [--cut M] [--bug B]     one run, or one state of it, as a failure names
/// them; B is the number of a planted bug (io/planted_bug.h)
/// crash_tests --engine-seed N [--cut M]           the same of the engine's runs
/// crash_tests --beside-seed N                     one run of its calls beside each other
/// crash_tests --damage-seed N [--cut M]           images with damaged tables

namespace {

int replay(uint64_t seed, const std::string& cut) {
  crash::Campaign campaign;
  campaign.only_cut = cut;
  const auto finding = crash::run_seed(campaign, seed);
  fmt::print("{}\n", finding
                         ? crash::report(*finding)
                         : fmt::format("seed {}: {} states, nothing found", seed, campaign.states));
  return finding ? 1 : 0;
}

int replay_engine(uint64_t seed, const std::string& cut) {
  crash::Campaign campaign;
  campaign.only_cut = cut;
  const auto failure = crash::EngineRun(campaign, seed).run();
  fmt::print("{} states\n{}\n", campaign.states,
             failure ? failure->what + "\ncut " + failure->cut : "nothing found");
  return failure ? 1 : 0;
}

int replay_beside(uint64_t seed) {
  crash::Campaign campaign;
  const auto failure = crash::BesideRun(campaign, seed).run();
  fmt::print("{}\n", failure ? failure->what : "nothing found");
  return failure ? 1 : 0;
}

int replay_damage(uint64_t seed, const std::string& cut) {
  crash::Campaign campaign;
  campaign.only_cut = cut;
  const auto failure = crash::DamageRun(campaign, seed).run();
  fmt::print("{} states\n{}\n", campaign.states,
             failure ? failure->what + "\ncut " + failure->cut : "nothing found");
  return failure ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::string seed, engine_seed, beside_seed, damage_seed, cut, bug;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--seed") seed = argv[i + 1];
    if (option == "--engine-seed") engine_seed = argv[i + 1];
    if (option == "--beside-seed") beside_seed = argv[i + 1];
    if (option == "--damage-seed") damage_seed = argv[i + 1];
    if (option == "--cut") cut = argv[i + 1];
    if (option == "--bug") bug = argv[i + 1];
  }
  if (!bug.empty()) io::planted_bug = io::PlantedBug{static_cast<uint8_t>(std::stoul(bug))};
  if (!engine_seed.empty()) return replay_engine(std::stoull(engine_seed), cut);
  if (!beside_seed.empty()) return replay_beside(std::stoull(beside_seed));
  if (!damage_seed.empty()) return replay_damage(std::stoull(damage_seed), cut);
  return seed.empty() ? RUN_ALL_TESTS() : replay(std::stoull(seed), cut);
}
