// SPDX-License-Identifier: Apache-2.0
#include "io/ring.h"

#include <gmock/gmock.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "io/call_on.h"
#include "io/ring_thread.h"
#include "tests/support/ring_fixture.h"

namespace io {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class RingExecutor : public support::RingTest {
 protected:
  Task<void> note_after(std::vector<int>& notes, int note, Duration patience) {
    co_await sleep(ring(), ring(), patience);
    notes.push_back(note);
  }
  Task<int> answer() { co_return 42; }
  Task<int> refuse() {
    throw std::runtime_error("refused");
    co_return 0;
  }
};

TEST_F(RingExecutor, RunReturnsTheResultOfItsTask) { EXPECT_EQ(run(answer()), 42); }

TEST_F(RingExecutor, RunThrowsTheFailureOfItsTask) {
  EXPECT_THROW(run(refuse()), std::runtime_error);
}

TEST_F(RingExecutor, AlarmsFireInTheOrderOfTheirTimes) {
  std::vector<int> notes;
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(note_after(notes, 3, 30ms));
    scope.spawn(note_after(notes, 1, 1ms));
    scope.spawn(note_after(notes, 2, 10ms));
    co_return;
  };
  run(run_scoped(body));
  EXPECT_THAT(notes, ElementsAre(1, 2, 3));
}

TEST_F(RingExecutor, ADroppedAlarmNeverFires) {
  bool fired = false;
  {
    const auto alarm = ring().call_at(ring().now(), [&] { fired = true; });
  }
  run(sleep(ring(), ring(), 5ms));
  EXPECT_FALSE(fired);
}

TEST_F(RingExecutor, WaitingWithPatienceTellsTheEventFromTheTimeout) {
  Event event(ring());
  EXPECT_FALSE(run(wait_for(ring(), ring(), event, 2ms)));
  const auto alarm = ring().call_at(ring().now() + 2ms, [&] { event.set(); });
  EXPECT_TRUE(run(wait_for(ring(), ring(), event, 5s)));
}

TEST_F(RingExecutor, JobsPostedByAnotherThreadRunInTheirOrder) {
  std::vector<int> notes;
  Event done(ring());
  std::thread other([&] {
    for (int i = 1; i <= 3; ++i) ring().post([&notes, i] { notes.push_back(i); });
    ring().post([&done] { done.set(); });
  });
  const auto wait = [&]() -> Task<void> { co_await done.wait(); };
  run(wait());
  other.join();
  EXPECT_THAT(notes, ElementsAre(1, 2, 3));
}

TEST_F(RingExecutor, BlockingCallsRunElsewhereAndTheirFailuresArriveHere) {
  const auto where = [] { return std::this_thread::get_id(); };
  EXPECT_NE(run(ring().run_blocking(where)), std::this_thread::get_id());
  const auto failing = []() -> int { throw std::runtime_error("no"); };
  EXPECT_THROW(run(ring().run_blocking(failing)), std::runtime_error);
}

TEST_F(RingExecutor, ABlockingCallThatDoesNotReturnHoldsUpNoOther) {
  std::promise<void> released;
  const auto stuck = [&] { released.get_future().wait(); };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(ring().run_blocking(stuck));
    co_await ring().run_blocking([] {});
    released.set_value();
  };
  run(run_scoped(body));
}

TEST_F(RingExecutor, MoreOperationsThanTheRingHoldsAllComplete) {
  int completed = 0;
  const auto nop = [&]() -> Task<void> {
    co_await ring().submit([](io_uring_sqe* sqe) { io_uring_prep_nop(sqe); });
    ++completed;
  };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    for (int i = 0; i < 20'000; ++i) scope.spawn(nop());
    co_return;
  };
  run(run_scoped(body));
  EXPECT_EQ(completed, 20'000);
}

TEST(RingTiers, EachLowerTierWorksOnThisKernel) {
  for (const RingTier tier : {RingTier::a, RingTier::b, RingTier::c}) {
    Ring ring({.best_tier = tier});
    EXPECT_EQ(ring.tier(), tier);
    ring.run(sleep(ring, ring, 1ms));
  }
}

TEST_F(RingExecutor, CallOnRunsThereAndReturnsHere) {
  RingThread elsewhere("elsewhere");
  std::thread::id there{};
  const auto visit = [&]() -> Task<int> {
    there = std::this_thread::get_id();
    co_await sleep(elsewhere.ring(), elsewhere.ring(), 1ms);
    co_return 7;
  };
  const auto body = [&]() -> Task<int> {
    const int result = co_await call_on(elsewhere.ring(), ring(), visit);
    EXPECT_TRUE(ring().here());
    co_return result;
  };
  EXPECT_EQ(run(body()), 7);
  EXPECT_NE(there, std::this_thread::get_id());
}

TEST_F(RingExecutor, CallOnBringsAFailureHome) {
  RingThread elsewhere("elsewhere");
  const auto visit = []() -> Task<void> {
    throw std::runtime_error("there");
    co_return;
  };
  EXPECT_THROW(run(call_on(elsewhere.ring(), ring(), visit)), std::runtime_error);
}

}  // namespace
}  // namespace io
