#include "io/buffer.h"

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
  EXPECT_EQ(held.size(), 7u);  // of 8 MiB, with a page each for the phase
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
  for (int i = 0; i < 7; ++i) {
    held.push_back(pool_.try_acquire(1 << 20));
    EXPECT_NE(held.back().data(), nullptr);
  }
  EXPECT_EQ(pool_.try_acquire(1 << 20).data(), nullptr);
}

TEST_F(Buffers, AreReusedLastInFirstOut) {
  const std::byte* const first = pool_.try_acquire(65536).data();
  EXPECT_EQ(pool_.try_acquire(65536).data(), first);
}

}  // namespace
}  // namespace io
