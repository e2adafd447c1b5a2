// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "io/planted_bug.h"
#include "tests/crash/beside_run.h"
#include "tests/crash/campaign.h"

namespace crash {
namespace {

/// The first failure of some runs.
std::optional<std::string> search_beside(Campaign& campaign, uint64_t runs) {
  for (uint64_t seed = campaign.first_seed; campaign.states < runs; ++seed) {
    if (const auto failure = BesideRun(campaign, seed).run()) {
      return fmt::format("{}\nreplay: crash_tests --beside-seed {}", failure->what, seed);
    }
  }
  return std::nullopt;
}

TEST(EngineCallsBesideEachOther, LoseNothingAndLeaveNothing) {
  Campaign campaign;
  const auto finding = search_beside(campaign, amount(60, 2'000));
  EXPECT_FALSE(finding) << *finding;
  fmt::print("{} runs\n", campaign.states);
}

class BesidePlantedBug : public ::testing::TestWithParam<io::PlantedBug> {
 protected:
  ~BesidePlantedBug() override { io::planted_bug = io::PlantedBug::none; }
};

TEST_P(BesidePlantedBug, IsFoundWithin200Runs) {
  if (is_sanitized()) GTEST_SKIP() << "a search for the optimised build";
  io::planted_bug = GetParam();
  Campaign campaign;
  const auto finding = search_beside(campaign, 200);
  ASSERT_TRUE(finding);
  fmt::print("found after {} runs: {}\n", campaign.states, *finding);
}

INSTANTIATE_TEST_SUITE_P(All, BesidePlantedBug,
                         ::testing::Values(io::PlantedBug::noreplace_without_fallback,

                                           io::PlantedBug::derived_file_fails_publish));

}  // namespace
}  // namespace crash
