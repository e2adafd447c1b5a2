#include <fmt/format.h>

#include <map>
#include <new>
#include <utility>

#include "qcow/chain.h"
#include "tests/qcow/image_sweep_fixture.h"
#include "tests/support/failing_allocations.h"

/// Each allocation fails once: nothing hangs or ends the process, the image ends, and what was
/// flushed reads back. Every one of a short script with all kinds of operations, and a sample of
/// the long one's; all of it with VARVE_LONG.
namespace qcow {
namespace {

class AllocationSweep : public Sweep {
 protected:
  /// False when there were fewer allocations than that.
  bool run_with_victim(uint64_t victim) {
    fresh_image();
    const size_t descriptors = open_descriptors();
    support::FailingAllocations allocations(victim);
    const ScriptResult result = run_all(runtime(), [&](bool armed) { allocations.arm(armed); });
    allocations_ = allocations.count();
    const std::string where = fmt::format("allocation {}, {}", victim, result.step);
    if (result.failure) {
      EXPECT_TRUE(allocations.failed()) << where << ": " << text_of(result.failure);
      EXPECT_EQ(text_of(result.failure), std::string(std::bad_alloc().what())) << where;
    }
    expect_promise(result, where);
    EXPECT_EQ(runtime().buffers.bytes_in_use(), 0u) << where;
    EXPECT_EQ(open_descriptors(), descriptors) << where;
    return allocations.failed();
  }

  void sweep(uint64_t stride) {
    uint64_t failures = 0;
    for (uint64_t victim = 0; run_with_victim(victim); victim += stride) {
      ++failures;
      if (HasFailure()) return;
    }
    EXPECT_GE(failures, 60u);
    std::printf("%llu of %llu allocations failed\n", static_cast<unsigned long long>(failures),
                static_cast<unsigned long long>(allocations_));
  }

  /// The first steps of each kind, in their order.
  void shorten_script() {
    const size_t each = is_long() ? 5 : 1;
    std::map<qcow_test::Step::Kind, size_t> taken;
    std::vector<qcow_test::Step> few;
    for (qcow_test::Step& step : script_) {
      if (taken[step.kind] < each && ++taken[step.kind]) few.push_back(std::move(step));
    }
    script_ = std::move(few);
    ASSERT_EQ(taken.size(), 6u);
  }

  uint64_t allocations_ = 0;
};

TEST_P(AllocationSweep, EachOfAShortScriptFailsOnceAndThePromiseHolds) {
  shorten_script();
  sweep(1);
}

TEST_P(AllocationSweep, EachOfTheLongScriptFailsOnceAndThePromiseHolds) {
  run_with_victim(UINT64_MAX - 1);
  EXPECT_GT(allocations_, 5000u);
  sweep(is_long() ? 1 : allocations_ / 60);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AllocationSweep, ::testing::ValuesIn(kShapes), name_of);

}  // namespace
}  // namespace qcow
