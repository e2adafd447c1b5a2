// SPDX-License-Identifier: Apache-2.0
#include "io/task_scope.h"

#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class Scopes : public support::RingTest {
 protected:
  Task<void> fail_with(const char* text) {
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    throw std::runtime_error(text);
  }
  Task<void> count_later(int& count) {
    co_await sleep(ring(), ring(), std::chrono::milliseconds(2));
    ++count;
  }
};

TEST_F(Scopes, JoinsEverythingAlsoWhenTheBodyThrows) {
  int count = 0;
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(count_later(count));
    scope.spawn(count_later(count));
    throw std::runtime_error("body");
    co_return;
  };
  try {
    run(run_scoped(body));
    FAIL() << "the body's failure is lost";
  } catch (const std::runtime_error& failure) {
    EXPECT_STREQ(failure.what(), "body");
  }
  EXPECT_EQ(count, 2);
}

TEST_F(Scopes, JoinRethrowsTheFirstFailureAfterAllHaveEnded) {
  int count = 0;
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(fail_with("task"));
    scope.spawn(count_later(count));
    co_return;
  };
  EXPECT_THROW(run(run_scoped(body)), std::runtime_error);
  EXPECT_EQ(count, 1);
}

TEST_F(Scopes, ALongLoopOverTasksThatEndAtOnceNeedsNoStack) {
  const auto one = []() -> Task<int> { co_return 1; };
  const auto sum = [&]() -> Task<int> {
    int total = 0;
    for (int i = 0; i < 1'000'000; ++i) total += co_await one();
    co_return total;
  };
  EXPECT_EQ(run(sum()), 1'000'000);
}

TEST_F(Scopes, ASemaphoreServesInTheOrderOfArrival) {
  Semaphore semaphore(ring(), 2);
  std::vector<int> order;
  const auto take = [&](int name, uint64_t units) -> Task<void> {
    const Grant grant = co_await Grant::acquire(semaphore, units);
    order.push_back(name);
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
  };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(take(1, 1));
    scope.spawn(take(2, 2));  // must wait for both units
    scope.spawn(take(3, 1));  // one unit is free, but 2 was first
    co_return;
  };
  run(run_scoped(body));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace io
