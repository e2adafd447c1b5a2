#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cstdlib>

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

/// Fails while refcounts alone decide which clusters are free.
TEST(DamagedTables, DISABLED_HarmNothingThatIsHealthy) {
  Campaign campaign;
  const uint64_t wanted = std::getenv("VARVE_LONG") != nullptr ? 200'000 : 5'000;
  const auto finding = search_damage(campaign, wanted);
  EXPECT_FALSE(finding) << *finding;
  fmt::print("{} damages judged in {} runs\n", campaign.states, campaign.runs);
}

}  // namespace
}  // namespace crash
