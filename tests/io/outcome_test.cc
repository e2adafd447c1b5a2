// SPDX-License-Identifier: Apache-2.0
#include "io/outcome.h"

#include <memory>
#include <stdexcept>
#include <string>

#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class Outcomes : public support::RingTest {
 protected:
  Task<std::string> word_later() {
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    co_return "late";
  }
  Task<void> fail_later() {
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    throw std::runtime_error("late");
  }
};

TEST_F(Outcomes, OfACallIsItsResultOrItsFailure) {
  Outcome<std::unique_ptr<int>> made = attempt([] { return std::make_unique<int>(3); });
  EXPECT_FALSE(made.failed());
  EXPECT_EQ(*made.take(), 3);

  Outcome<int> failed = attempt([]() -> int { throw std::runtime_error("no"); });
  EXPECT_TRUE(failed.failed());
  EXPECT_NE(failed.failure(), nullptr);
  EXPECT_THROW(failed.take(), std::runtime_error);
}

TEST_F(Outcomes, OfACallWithoutAResultIsThatItEnded) {
  int calls = 0;
  Outcome<> ended = attempt([&] { ++calls; });
  EXPECT_FALSE(ended.failed());
  EXPECT_NO_THROW(ended.take());
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(attempt([] { throw std::runtime_error("no"); }).take(), std::runtime_error);
}

TEST_F(Outcomes, OfATaskArriveWhenItHasEnded) {
  const auto body = [&]() -> Task<void> {
    Outcome<std::string> word = co_await attempt([&] { return word_later(); });
    EXPECT_EQ(word.take(), "late");
    Task<void> failing = fail_later();
    Outcome<> failed = co_await attempt(std::move(failing));
    EXPECT_TRUE(failed.failed());
    co_await word_later();  // which a catch could not do
    EXPECT_THROW(failed.take(), std::runtime_error);
  };
  run(body());
}

TEST_F(Outcomes, OfATaskThatCouldNotBeMadeIsWhatWasThrown) {
  const auto body = [&]() -> Task<void> {
    const auto make = []() -> Task<int> { throw std::bad_alloc(); };
    Outcome<int> failed = co_await attempt([&]() -> Task<int> {
      if (ring().here()) throw std::length_error("before there is a task");
      return make();
    });
    EXPECT_THROW(failed.take(), std::length_error);
  };
  run(body());
}

TEST_F(Outcomes, OfTasksThatEndAtOnceNeedNoStack) {
  const auto one = []() -> Task<int> { co_return 1; };
  const auto sum = [&]() -> Task<int> {
    int total = 0;
    for (int i = 0; i < 200'000; ++i) {
      Outcome<int> next = co_await attempt([&] { return one(); });
      total += next.take();
    }
    co_return total;
  };
  EXPECT_EQ(run(sum()), 200'000);
}

}  // namespace
}  // namespace io
