// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "io/log.h"
#include "io/planted_bug.h"
#include "tests/crash/campaign.h"

namespace crash {
namespace {

/// Sessions of a killed process are no news.
const bool quiet = (io::configure_log(io::LogFormat::text, io::LogLevel::error), true);

/// Nothing is lost, torn or broken in any of the states that power cuts leave.
TEST(PowerCut, LeavesEveryPromiseKept) {
  Campaign campaign;
  campaign.other_checker_every = 500;
  const uint64_t wanted = amount(20'000, 1'000'000);
  const auto finding = search(campaign, wanted);
  if (finding) FAIL() << report(*finding);
  fmt::print(
      "{} states judged in {} runs, {} of them by qemu-img check too, {} by their manifests; {} "
      "bytes elided\n",
      campaign.states, campaign.runs, campaign.other_checks, campaign.published_states,
      campaign.elided_bytes);
  EXPECT_GE(campaign.states, wanted);
  EXPECT_GE(campaign.published_states, wanted / 20);
  EXPECT_GE(campaign.elided_bytes, wanted * 5);
  EXPECT_GE(campaign.other_checks, wanted / 1000);
}

/// What the simulator has found in varve; each failed before it was mended.
class Regression : public ::testing::Test {
 protected:
  static Op op(Op::Kind kind, uint64_t offset = 0, uint64_t length = 0) {
    Op op;
    op.kind = kind;
    op.offset = offset;
    op.length = length;
    op.tag = offset + 77 * ++tags_;
    return op;
  }
  /// The script on a small image without parents, in as many orders as there are seeds.
  static void expect_nothing(const std::vector<Op>& script, uint64_t seeds) {
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      Shape shape;
      shape.size = shape.hot_size = 64 << 10;
      shape.options.commit_interval = std::chrono::microseconds(200);
      shape.options.tuning.partial_bytes = 4096;
      Campaign campaign;
      campaign.states_a_run = 60;
      ImageRun run(campaign, seed, shape, script);
      const auto failure = run.run();
      ASSERT_FALSE(failure) << "seed " << seed << ": " << failure->what;
    }
  }

 private:
  static inline uint64_t tags_ = 0;
};

TEST_F(Regression, AFlushAfterARestartCoversWhatTheKilledProcessHadAcknowledged) {
  expect_nothing({op(Op::Kind::write, 0, 4096), op(Op::Kind::flush), op(Op::Kind::write, 0, 4096),
                  op(Op::Kind::kill), op(Op::Kind::flush)},
                 50);
}

TEST_F(Regression, ClosingWhileACommitFillsPartialClustersEnds) {
  std::vector<Op> script;
  for (uint64_t i = 0; i < 20; ++i) {
    script.push_back(op(Op::Kind::write, i * 1024 + 100, 100));
    script.push_back(op(Op::Kind::reopen));
  }
  expect_nothing(script, 20);
}

class PlantedBug : public ::testing::TestWithParam<io::PlantedBug> {
 protected:
  ~PlantedBug() override { io::planted_bug = io::PlantedBug::none; }
};

/// The simulator is worth what it finds.
TEST_P(PlantedBug, IsFoundWithin20000States) {
  if (is_sanitized()) GTEST_SKIP() << "a search for the optimised build";
  io::planted_bug = GetParam();
  Campaign campaign;
  const auto finding = search(campaign, 20'000);
  ASSERT_TRUE(finding) << campaign.states << " states judged";
  fmt::print("found in run {} after {} states: {}\n", campaign.runs, campaign.states,
             finding->failure.what);
}

INSTANTIATE_TEST_SUITE_P(
    All, PlantedBug,
    ::testing::Values(io::PlantedBug::flush_without_sync, io::PlantedBug::flush_without_l2,
                      io::PlantedBug::l2_before_refcount, io::PlantedBug::table_entry_before_block,
                      io::PlantedBug::freed_cluster_reused, io::PlantedBug::zero_before_rewrite,
                      io::PlantedBug::flush_while_queued,
                      io::PlantedBug::sync_trusted_after_failure,
                      io::PlantedBug::flush_of_own_connection, io::PlantedBug::header_before_table,
                      io::PlantedBug::directory_not_synced, io::PlantedBug::l1_before_l2,
                      io::PlantedBug::table_evicted_while_committed,
                      io::PlantedBug::lock_on_other_description,
                      io::PlantedBug::direct_beside_buffered,
                      io::PlantedBug::elision_of_own_cluster, io::PlantedBug::elision_unconfirmed,
                      io::PlantedBug::manifest_name_unsynced, io::PlantedBug::manifest_unsynced,
                      io::PlantedBug::manifest_keeps_old_sum, io::PlantedBug::damage_overlooked));

}  // namespace
}  // namespace crash
