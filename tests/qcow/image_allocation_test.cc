// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <map>
#include <new>
#include <string_view>
#include <utility>

#include "io/executor.h"
#include "io/task_scope.h"
#include "qcow/chain/chain.h"
#include "tests/qcow/image_sweep_fixture.h"
#include "tests/support/failing_allocations.h"

/// Each allocation fails once: nothing hangs or ends the process, the image ends, and what was
/// flushed reads back. Every one of a short script with all kinds of operations, up to its publish,
/// and of opening, reading and checking what it left; a sample of the long script's, or all of it
/// with VARVE_LONG.
namespace qcow {
namespace {

constexpr unsigned kHangSeconds = 30;

/// What waits for ever is told, and ends the test.
[[noreturn]] void end_a_hang(int) {
  constexpr std::string_view kText = "an allocation that failed made the image wait for ever\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(1);
}

class AllocationSweep : public Sweep {
 protected:
  AllocationSweep() { std::signal(SIGALRM, end_a_hang); }
  ~AllocationSweep() override { ::alarm(0); }

  /// False when there were fewer allocations than that.
  bool run_with_victim(uint64_t victim) {
    ::alarm(kHangSeconds);
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
    EXPECT_GE(failures, 20u);
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

  /// What other code does with a restore point.
  Bytes open_read_and_check() {
    Bytes disk(base_.size());
    const auto chain = run(Chain::open(runtime(), file("a.qcow2"), ChainOptions()));
    run(chain->extents(0, disk.size(), SIZE_MAX));
    run(chain->read(0, disk));
    run(chain->read(disk.size() / 2 + 1, std::span(disk).subspan(disk.size() / 2 + 1)));
    EXPECT_TRUE(run(check(runtime(), file("a.qcow2"), CheckOptions())).clean());
    return disk;
  }

  /// Four ask for the same bytes at the same time; returns how many could not be served.
  size_t read_side_by_side(Chain& chain, support::FailingAllocations& allocations) {
    std::array<Bytes, 4> disks;
    size_t refused = 0;
    const auto read_one = [&](Bytes& disk) -> io::Task<void> {
      co_await io::NextTurn{runtime().executor};
      try {
        co_await chain.read(0, disk);
        EXPECT_EQ(disk, expected_);
      } catch (const std::bad_alloc&) {
        ++refused;
      }
    };
    const auto read_all = [&](io::TaskScope& scope) -> io::Task<void> {
      for (Bytes& disk : disks) scope.spawn(read_one(disk));
      allocations.arm(true);
      co_await scope.joined();
      allocations.arm(false);
    };
    for (Bytes& disk : disks) disk.resize(base_.size());
    run(io::run_scoped(read_all));
    return refused;
  }

  Bytes expected_;
  uint64_t allocations_ = 0;
};

TEST_P(AllocationSweep, EachOfAShortScriptFailsOnceAndThePromiseHolds) {
  shorten_script();
  sweep(1);
}

TEST_P(AllocationSweep, EachOfOpeningReadingAndCheckingFailsOnceAndTheNextTryIsAsGood) {
  shorten_script();
  run_with_victim(UINT64_MAX - 1);
  const Bytes disk = open_read_and_check();
  const size_t descriptors = open_descriptors();
  for (uint64_t victim = 0;; ++victim) {
    ::alarm(kHangSeconds);
    support::FailingAllocations allocations(victim);
    allocations.arm(true);
    bool threw = false;
    try {
      open_read_and_check();
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    allocations.arm(false);
    EXPECT_EQ(threw, allocations.failed()) << "allocation " << victim;
    EXPECT_EQ(runtime().buffers.bytes_in_use(), 0u) << "allocation " << victim;
    EXPECT_EQ(open_descriptors(), descriptors) << "allocation " << victim;
    EXPECT_EQ(open_read_and_check(), disk) << "allocation " << victim;
    if (!allocations.failed() || HasFailure()) {
      EXPECT_GE(victim, 60u);
      return;
    }
  }
}

TEST_P(AllocationSweep, EachOfReadersSideBySideFailsOnceAndTheOthersNeverWaitForIt) {
  shorten_script();
  run_with_victim(UINT64_MAX - 1);
  expected_ = open_read_and_check();
  for (uint64_t victim = 0;; ++victim) {
    ::alarm(kHangSeconds);
    support::FailingAllocations allocations(victim);
    const auto chain = run(Chain::open(runtime(), file("a.qcow2"), ChainOptions()));
    EXPECT_LE(read_side_by_side(*chain, allocations), 1u) << "allocation " << victim;
    EXPECT_EQ(runtime().buffers.bytes_in_use(), 0u) << "allocation " << victim;
    if (!allocations.failed() || HasFailure()) {
      EXPECT_GE(victim, 20u);
      return;
    }
  }
}

TEST_P(AllocationSweep, EachOfTheLongScriptFailsOnceAndThePromiseHolds) {
  run_with_victim(UINT64_MAX - 1);
  EXPECT_GT(allocations_, 5000u);
  sweep(is_long() ? 1 : allocations_ / 20);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AllocationSweep, ::testing::ValuesIn(kShapes), name_of);

}  // namespace
}  // namespace qcow
