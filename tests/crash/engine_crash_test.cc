// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "io/log.h"
#include "io/planted_bug.h"
#include "tests/crash/campaign.h"
#include "tests/crash/engine_run.h"

namespace crash {
namespace {

/// The first failure of some runs.
std::optional<std::string> search_engine(Campaign& campaign, uint64_t states_wanted) {
  for (uint64_t seed = 1; campaign.states < states_wanted; ++seed) {
    EngineRun run(campaign, seed);
    if (const auto failure = run.run()) {
      return fmt::format("{}\nseed {}, cut {}", failure->what, seed, failure->cut);
    }
    ++campaign.runs;
  }
  return std::nullopt;
}

TEST(EnginePowerCut, LosesNoDecidedBackupInAnyRecovery) {
  Campaign campaign;
  const uint64_t wanted = amount(2'000, 20'000);
  const auto finding = search_engine(campaign, wanted);
  EXPECT_FALSE(finding) << *finding;
  fmt::print("{} states judged in {} runs\n", campaign.states, campaign.runs);
  for (const auto& [what, count] : campaign.judged) fmt::print("  {}: {}\n", what, count);
  if (is_sanitized()) return;
  for (const char* const what :
       {"resumed", "rebuilt", "verified", "cut off again", "older catalogue used",
        "older catalogue rebuilt", "deletion finished"}) {
    EXPECT_GE(campaign.judged[what], 1u) << what << ": never judged";
  }
}

class EnginePlantedBug : public ::testing::TestWithParam<io::PlantedBug> {
 protected:
  ~EnginePlantedBug() override { io::planted_bug = io::PlantedBug::none; }
};

TEST_P(EnginePlantedBug, IsFoundWithin20000States) {
  if (is_sanitized()) GTEST_SKIP() << "a search for the optimised build";
  io::planted_bug = GetParam();
  Campaign campaign;
  const auto finding = search_engine(campaign, 20'000);
  ASSERT_TRUE(finding) << campaign.states << " states judged";
  fmt::print("found after {} states: {}\n", campaign.states, *finding);
}

INSTANTIATE_TEST_SUITE_P(
    All, EnginePlantedBug,
    ::testing::Values(io::PlantedBug::completed_before_durable,
                      io::PlantedBug::directory_not_synced, io::PlantedBug::decided_job_discarded,
                      io::PlantedBug::delete_without_identity,
                      io::PlantedBug::promotion_name_unsynced,
                      io::PlantedBug::manifest_name_unsynced, io::PlantedBug::manifest_unsynced,
                      io::PlantedBug::proof_in_place, io::PlantedBug::arrival_before_flush,
                      io::PlantedBug::proof_without_checksum, io::PlantedBug::damage_overlooked,
                      io::PlantedBug::restore_row_first, io::PlantedBug::deletion_row_first));

}  // namespace
}  // namespace crash
