// SPDX-License-Identifier: Apache-2.0
#include "io/buffer.h"

#include <random>
#include <thread>

#include "io/call_on.h"
#include "io/ring_thread.h"
#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class Buffers : public support::RingTest {
 protected:
  static constexpr uint64_t kBudget = 8 << 20;
  Buffers() : pool_(ring(), kBudget) {}
  BufferPool pool_;
};

TEST_F(Buffers, LieAtTheMemoryPhaseOfTheirOffset) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{512}, uint64_t{43520}, uint64_t{4095}}) {
    const Buffer buffer = pool_.try_acquire(1 << 20, offset);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, offset % 4096);
    EXPECT_EQ(buffer.size(), 1u << 20);
  }
}

TEST_F(Buffers, BeyondTheBudgetWaitUntilOneIsGivenBack) {
  std::vector<Buffer> held;
  while (true) {
    Buffer buffer = pool_.try_acquire(1 << 20);
    if (buffer.data() == nullptr) break;
    held.push_back(std::move(buffer));
  }
  EXPECT_EQ(held.size(), 8u);
  bool got = false;
  const auto wait = [&]() -> Task<void> {
    const Buffer buffer = co_await pool_.acquire(1 << 20);
    got = true;
  };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(wait());
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    EXPECT_FALSE(got);
    held.pop_back();
  };
  run(run_scoped(body));
  EXPECT_TRUE(got);
  EXPECT_LE(pool_.bytes_in_use(), kBudget);
}

TEST_F(Buffers, OverTheBudgetAreGrantedAtOnceAndSettledLater) {
  std::vector<Buffer> held;
  for (int i = 0; i < 12; ++i) held.push_back(pool_.acquire_over_budget(1 << 20));
  EXPECT_GT(pool_.bytes_in_use(), kBudget);
  held.clear();
  EXPECT_EQ(pool_.bytes_in_use(), 0u);
  for (int i = 0; i < 8; ++i) {
    held.push_back(pool_.try_acquire(1 << 20));
    EXPECT_NE(held.back().data(), nullptr);
  }
  EXPECT_EQ(pool_.try_acquire(1 << 20).data(), nullptr);
}

TEST_F(Buffers, OfAllSizesAndLifetimesLeaveFewChunksHalfEmpty) {
  constexpr uint64_t kLarge = 64 << 20;
  BufferPool pool(ring(), kLarge);
  std::mt19937_64 chance(3);
  std::vector<Buffer> held;
  uint64_t mapped_max = 0;
  for (int step = 0; step < 100'000; ++step) {
    // From 4 KiB to 1 MiB, each power of two as often as the others.
    Buffer buffer = pool.try_acquire(size_t{4096} << chance() % 9);
    if (buffer.data() != nullptr) {
      held.push_back(std::move(buffer));
    } else {
      std::swap(held[chance() % held.size()], held.back());
      held.pop_back();
    }
    mapped_max = std::max(mapped_max, pool.bytes_mapped());
  }
  RecordProperty("mapped_mib", static_cast<int>(mapped_max >> 20));
  EXPECT_LE(mapped_max, kLarge * 5 / 4);
}

/// Two pools of one process; in real life each has a thread of its own.
class SharedBudget : public support::RingTest {
 protected:
  static constexpr uint64_t kBudget = 16 << 20;
  std::shared_ptr<MemoryBudget> budget_ = std::make_shared<MemoryBudget>(kBudget);
  BufferPool here_{ring(), budget_}, there_{ring(), budget_};

  static std::vector<Buffer> take_all(BufferPool& pool) {
    std::vector<Buffer> held;
    for (;;) {
      Buffer buffer = pool.try_acquire(1 << 20);
      if (buffer.data() == nullptr) return held;
      held.push_back(std::move(buffer));
    }
  }
  void settle() { run(sleep(ring(), ring(), std::chrono::milliseconds(1))); }
};

TEST_F(SharedBudget, HoldsForAllPoolsTogether) {
  const std::vector<Buffer> held = take_all(here_);
  EXPECT_EQ(held.size(), 16u);
  EXPECT_TRUE(take_all(there_).empty());
  EXPECT_LE(here_.bytes_in_use() + there_.bytes_in_use(), kBudget);
}

TEST_F(SharedBudget, WhatOnePoolNoLongerUsesServesTheOther) {
  {  // all of it is kept there, ready for use again
    std::vector<Buffer> held;
    for (int i = 0; i < 16; ++i) held.push_back(here_.try_acquire(1 << 20));
  }
  EXPECT_EQ(here_.bytes_mapped(), kBudget);
  EXPECT_TRUE(take_all(there_).empty());
  settle();
  EXPECT_EQ(take_all(there_).size(), 16u);
  EXPECT_EQ(here_.bytes_mapped(), 0u);
}

TEST_F(SharedBudget, AWaitingPoolGetsWhatTheOtherGivesBack) {
  std::vector<Buffer> held = take_all(here_);
  bool got = false;
  const auto wait = [&]() -> Task<void> {
    const Buffer buffer = co_await there_.acquire(1 << 20);
    got = true;
  };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(wait());
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    EXPECT_FALSE(got);
    held.pop_back();
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    EXPECT_TRUE(got);
  };
  run(run_scoped(body));
}

TEST_F(SharedBudget, WhatWasHandedOutBeyondItIsNotGivenBackToIt) {
  Buffer small = here_.try_acquire(4096);
  std::vector<Buffer> held = take_all(there_);
  settle();
  for (Buffer& buffer : take_all(there_)) held.push_back(std::move(buffer));
  Buffer large = here_.acquire_over_budget(1 << 20);  // and the pool waits for a lease
  small = Buffer();
  large = Buffer();  // a part of it settles, the rest is the lease of the small one
  held.clear();
  EXPECT_TRUE(take_all(here_).empty());
  settle();
  EXPECT_EQ(take_all(here_).size(), 16u);
}

TEST_F(SharedBudget, APoolWithMoreThanItsShareServesTheOtherFirst) {
  std::vector<Buffer> held = take_all(here_);
  std::vector<int> served;
  const auto wait = [&](BufferPool& pool, int name) -> Task<void> {
    const Buffer buffer = co_await pool.acquire(1 << 20);
    served.push_back(name);
  };
  const auto body = [&](TaskScope& scope) -> Task<void> {
    scope.spawn(wait(here_, 1));
    scope.spawn(wait(there_, 2));
    held.pop_back();
    co_await sleep(ring(), ring(), std::chrono::milliseconds(1));
    held.clear();
  };
  run(run_scoped(body));
  EXPECT_EQ(served.size(), 2u);
  EXPECT_EQ(served.front(), 2);
}

TEST(SharedBudgetOfThreads, IsNeverExceededAndNobodyWaitsForEver) {
  constexpr uint64_t kBudget = 12 << 20;
  const auto budget = std::make_shared<MemoryBudget>(kBudget);
  RingThreadOptions options;
  options.shared_budget = budget;
  std::vector<std::unique_ptr<RingThread>> threads;
  for (int i = 0; i < 3; ++i) threads.push_back(std::make_unique<RingThread>("pool", options));
  std::atomic<int64_t> in_use = 0, most = 0;
  const auto churn = [&](RingThread& thread, uint64_t seed) -> Task<void> {
    std::mt19937_64 chance(seed);
    const auto one = [&](size_t size) -> Task<void> {
      const Buffer buffer = co_await thread.runtime().buffers.acquire(size);
      const int64_t now = in_use += static_cast<int64_t>(size);
      int64_t seen = most;
      while (now > seen && !most.compare_exchange_weak(seen, now)) continue;
      if (chance() % 4 == 0) {
        co_await sleep(thread.ring(), thread.ring(), std::chrono::microseconds(chance() % 300));
      }
      in_use -= static_cast<int64_t>(size);
    };
    for (int round = 0; round < 100; ++round) {
      const auto body = [&](TaskScope& scope) -> Task<void> {
        for (int i = 0; i < 8; ++i) scope.spawn(one(1 + chance() % (2 << 20)));
        co_return;
      };
      co_await run_scoped(std::cref(body));
    }
  };
  std::vector<std::thread> callers;
  for (size_t i = 0; i < threads.size(); ++i) {
    callers.emplace_back([&, i] {
      const auto work = [&] { return churn(*threads[i], i); };
      call_and_wait(threads[i]->ring(), work);
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const auto& thread : threads) thread->stop();
  EXPECT_LE(most.load(), static_cast<int64_t>(kBudget));
  EXPECT_GT(most.load(), static_cast<int64_t>(kBudget / 2));
}

TEST_F(Buffers, AreReusedBeforeMemoryIsMapped) {
  const std::byte* const first = pool_.try_acquire(65536).data();
  EXPECT_EQ(pool_.try_acquire(65536).data(), first);
  EXPECT_EQ(pool_.bytes_mapped(), BufferChunk::kBytes);
}

TEST_F(Buffers, OverTheBudgetAreUnmappedWhenTheyAreGivenBack) {
  {
    std::vector<Buffer> held;
    for (int i = 0; i < 12; ++i) held.push_back(pool_.acquire_over_budget(1 << 20));
    EXPECT_EQ(pool_.bytes_mapped(), 12u << 20);
  }
  EXPECT_EQ(pool_.bytes_mapped(), kBudget);
}

}  // namespace
}  // namespace io
