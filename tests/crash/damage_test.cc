// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cstdlib>

#include "io/planted_bug.h"
#include "tests/crash/campaign.h"
#include "tests/crash/damage_run.h"

namespace crash {
namespace {

/// The first failure of some runs.
std::optional<std::string> search_damage(Campaign& campaign, uint64_t states_wanted) {
  for (uint64_t seed = 1; campaign.states < states_wanted; ++seed) {
    ++campaign.runs;
    if (const auto failure = DamageRun(campaign, seed).run()) {
      return fmt::format("{}\nreplay: crash_tests --damage-seed {} --cut {}", failure->what, seed,
                         failure->cut);
    }
  }
  return std::nullopt;
}

TEST(DamagedTables, HarmNothingThatIsHealthy) {
  Campaign campaign;
  const uint64_t wanted = amount(5'000, 50'000);
  const auto finding = search_damage(campaign, wanted);
  EXPECT_FALSE(finding) << *finding;
  fmt::print("{} damages judged in {} runs\n", campaign.states, campaign.runs);
}

class DamagePlantedBug : public ::testing::TestWithParam<io::PlantedBug> {
 protected:
  ~DamagePlantedBug() override { io::planted_bug = io::PlantedBug::none; }
};

TEST_P(DamagePlantedBug, IsFoundWithin20000States) {
  if (is_sanitized()) GTEST_SKIP() << "a search for the optimised build";
  io::planted_bug = GetParam();
  Campaign campaign;
  const auto finding = search_damage(campaign, 20'000);
  ASSERT_TRUE(finding) << campaign.states << " damages judged";
  fmt::print("found after {} damages: {}\n", campaign.states, *finding);
}

INSTANTIATE_TEST_SUITE_P(All, DamagePlantedBug,
                         ::testing::Values(io::PlantedBug::free_without_table_check,
                                           io::PlantedBug::seal_bit_decides,
                                           io::PlantedBug::half_decoded_write));

}  // namespace
}  // namespace crash
