// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <random>

#include "io/task_scope.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/file_space.h"
#include "qcow/image/partial_clusters.h"
#include "qcow/image/range_queue.h"
#include "qcow/image/retained_clusters.h"
#include "tests/support/command.h"
#include "tests/support/ring_fixture.h"

namespace qcow {
namespace {

TEST(ZeroCheck, FindsEverySingleByte) {
  std::vector<std::byte> bytes(5000);
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{700}, size_t{4096}, bytes.size()}) {
    const std::span<std::byte> part = std::span(bytes).first(size);
    EXPECT_TRUE(is_zero(part));
    for (size_t i = 0; i < size; i += 13) {
      part[i] = std::byte{1};
      EXPECT_FALSE(is_zero(part)) << i << " of " << size;
      part[i] = std::byte{0};
    }
    if (size == 0) continue;
    part[size - 1] = std::byte{0x80};
    EXPECT_FALSE(is_zero(part));
    part[size - 1] = std::byte{0};
  }
}

TEST(RetainedClusters, GiveEachGuestClusterItsOwnHostClusterOnce) {
  RetainedClusters retained;
  std::map<GuestCluster, HostCluster> model;
  std::mt19937_64 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const GuestCluster guest{random() % 500};
    if (random() % 2 == 0 && !model.contains(guest)) {
      const HostCluster host{random() % 3 == 0 ? random() % 10'000 : guest.index + 1000};
      retained.add(guest, host);
      model[guest] = host;
    } else {
      const auto own = retained.take(guest);
      ASSERT_EQ(own.has_value(), model.contains(guest));
      if (own) {
        ASSERT_EQ(*own, model[guest]);
      }
      model.erase(guest);
    }
  }
  uint64_t left = 0;
  for (const auto& run : retained.take_all()) left += run.count;
  EXPECT_EQ(left, model.size());
  EXPECT_TRUE(retained.empty());
}

class PartialClustersTest : public support::RingTest {
 protected:
  PartialClusters partials_{runtime().buffers,
                            {.cluster_bits = 12, .virtual_size = 3 * 4096 + 100}};
};

TEST_F(PartialClustersTest, AreCompleteWhenTheRangesMeet) {
  PartialCluster& partial = partials_.get({1});
  const std::vector<std::byte> bytes(4096, std::byte{1});
  const std::span<const std::byte> all(bytes);
  partial.put(0, all.first(10));
  partial.put(20, all.first(10));
  partial.put(40, all.first(10));
  EXPECT_EQ(partial.valid.size(), 3u);
  partial.put(5, all.first(30));
  EXPECT_EQ(partial.valid, (std::vector<ByteRange>{{0, 35}, {40, 50}}));
  EXPECT_EQ(partial.gaps(), (std::vector<ByteRange>{{35, 40}, {50, 4096}}));
  partial.put(50, all.first(4096 - 50));
  EXPECT_FALSE(partial.complete());
  partial.put_zeroes(35, 5);
  EXPECT_TRUE(partial.complete());
  EXPECT_TRUE(partial.gaps().empty());
}

TEST_F(PartialClustersTest, PastTheEndOfTheDiskAreValidZeroes) {  // WP5
  EXPECT_EQ(partials_.get({3}).valid, (std::vector<ByteRange>{{100, 4096}}));
}

TEST_F(PartialClustersTest, OverlayOnlyWhatIsValid) {
  const std::vector<std::byte> ones(100, std::byte{1});
  partials_.get({0}).put(4000, std::span<const std::byte>(ones).first(96));
  partials_.get({1}).put(10, std::span<const std::byte>(ones).first(5));
  std::vector<std::byte> read(200, std::byte{9});
  partials_.overlay(4090, read);
  EXPECT_EQ(read[5], std::byte{1});
  EXPECT_EQ(read[6], std::byte{9});
  EXPECT_EQ(read[16], std::byte{1});
  EXPECT_EQ(read[21], std::byte{9});
}

TEST_F(PartialClustersTest, OldestComeFirst) {
  for (const uint64_t cluster : {5, 2, 9, 1}) partials_.get({cluster % 3 + cluster * 10});
  EXPECT_EQ(partials_.oldest(2), (std::vector<GuestCluster>{{22}, {52}}));
}

class RangeQueueTest : public support::RingTest {
 protected:
  io::Task<void> enter_and_stay(uint64_t first, uint64_t count, RangeQueue::Access access,
                                int number, io::Event& leave) {
    const RangeQueue::Hold hold = co_await queue_.enter({first}, count, access);
    order_.push_back(number);
    co_await leave.wait();
  }
  io::Task<void> turn() {
    co_await io::sleep(ring(), runtime().clock, std::chrono::milliseconds(1));
  }

  RangeQueue queue_{runtime().executor};
  std::vector<int> order_;
};

TEST_F(RangeQueueTest, OverlappingOnesEnterInOrderOfArrival) {
  io::Event first(runtime().executor), second(runtime().executor);
  io::TaskScope scope;
  using Access = RangeQueue::Access;
  scope.spawn(enter_and_stay(0, 10, Access::exclusive, 1, first));
  scope.spawn(enter_and_stay(5, 10, Access::exclusive, 2, second));  // waits for 1
  scope.spawn(enter_and_stay(12, 1, Access::shared, 3, second));     // waits for 2
  scope.spawn(enter_and_stay(20, 1, Access::exclusive, 4, second));  // free
  scope.spawn(enter_and_stay(0, 1, Access::shared, 5, second));      // waits for 1
  scope.spawn(enter_and_stay(0, 1, Access::shared, 6, second));      // beside 5
  EXPECT_EQ(order_, (std::vector<int>{1, 4}));
  first.set();
  run(turn());
  EXPECT_EQ(order_, (std::vector<int>{1, 4, 2, 5, 6}));
  second.set();
  run(turn());
  EXPECT_EQ(order_, (std::vector<int>{1, 4, 2, 5, 6, 3}));
  run(scope.join());
  EXPECT_EQ(queue_.size(), 0u);
}

/// Operations on a queue beside a list of all that came, which says who may be inside.
class RangeQueueModel : public RangeQueueTest {
 protected:
  struct Operation {
    uint64_t first = 0, last = 0;
    bool exclusive = false;
    bool inside = false;
    std::unique_ptr<io::Event> leave;
  };
  io::Task<void> be(Operation& operation) {
    const auto access =
        operation.exclusive ? RangeQueue::Access::exclusive : RangeQueue::Access::shared;
    const uint64_t count = operation.last - operation.first + 1;
    const RangeQueue::Hold hold = co_await queue_.enter({operation.first}, count, access);
    operation.inside = true;
    co_await operation.leave->wait();
  }
  void expect_as_model() {
    for (auto later = operations_.begin(); later != operations_.end(); ++later) {
      const bool blocked = std::any_of(operations_.begin(), later, [&](const Operation& earlier) {
        return earlier.first <= later->last && later->first <= earlier.last &&
               (earlier.exclusive || later->exclusive);
      });
      ASSERT_EQ(later->inside, !blocked) << later->first << " to " << later->last;
    }
  }

  std::list<Operation> operations_;  // in order of arrival
};

TEST_F(RangeQueueModel, LetsInExactlyThoseThatNothingEarlierExcludes) {
  std::mt19937_64 random(3);
  io::TaskScope scope;
  for (int round = 0; round < 3000; ++round) {
    if (random() % 2 == 0 || operations_.empty()) {
      Operation& made = operations_.emplace_back();
      made.first = random() % 40;
      made.last = made.first + (random() % 4 == 0 ? random() % 30 : random() % 3);
      made.exclusive = random() % 2 == 0;
      made.leave = std::make_unique<io::Event>(runtime().executor);
      scope.spawn(be(made));
    } else {
      std::vector<std::list<Operation>::iterator> inside;
      for (auto it = operations_.begin(); it != operations_.end(); ++it) {
        if (it->inside) inside.push_back(it);
      }
      const auto one = inside[random() % inside.size()];
      one->leave->set();
      run(io::Task<void>([](io::Executor& e) -> io::Task<void> {
        co_await io::NextTurn{e};
        co_await io::NextTurn{e};
      }(runtime().executor)));
      operations_.erase(one);
    }
    ASSERT_NO_FATAL_FAILURE(expect_as_model());
  }
  while (!operations_.empty()) {
    operations_.front().leave->set();
    run(turn());
    operations_.pop_front();
  }
  run(scope.join());
  EXPECT_EQ(queue_.size(), 0u);
}

TEST_F(RangeQueueTest, CostsAFewStepsForEachOperationHoweverManyWait) {
  constexpr uint64_t kReaders = 30'000, kWriters = 3'000;
  io::Event leave(runtime().executor);
  io::TaskScope scope;
  const auto pass = [this](uint64_t cluster, RangeQueue::Access access,
                           io::Event* until) -> io::Task<void> {
    const RangeQueue::Hold hold = co_await queue_.enter({cluster}, 1, access);
    if (until != nullptr) co_await until->wait();
  };
  for (uint64_t i = 0; i < kReaders; ++i) {
    scope.spawn(pass(i % 2 * 7, RangeQueue::Access::shared, &leave));
  }
  for (uint64_t i = 0; i < kWriters; ++i) {
    scope.spawn(pass(7, RangeQueue::Access::exclusive, nullptr));
    scope.spawn(pass(7, RangeQueue::Access::shared, nullptr));
    scope.spawn(pass(100 + i, RangeQueue::Access::exclusive, nullptr));
  }
  leave.set();
  run(scope.join());
  EXPECT_EQ(queue_.size(), 0u);
  EXPECT_LT(queue_.steps(), 10 * (kReaders + 3 * kWriters));
}

class FileSpaceTest : public support::RingTest {};

TEST_F(FileSpaceTest, ReservesBeyondTheFirstEstimateOnceMoreIsExpected) {
  const support::TempDir directory;
  const auto file = run(runtime().files.open(directory.file("a"), io::OpenMode::create_new));
  constexpr uint64_t kMiB = 1 << 20;
  FileSpace space(ring(), *file, nullptr, kMiB, {.file = 0, .allocated = 0, .max = 2 * kMiB});
  run(space.reserve(3 * kMiB));
  EXPECT_EQ(space.allocated_end(), 2 * kMiB) << "no more can be needed";
  space.expect_more(4 * kMiB);
  EXPECT_FALSE(space.covers(3 * kMiB));
  run(space.reserve(3 * kMiB));
  EXPECT_GE(space.allocated_end(), 3 * kMiB);
  run(space.stop());
}

}  // namespace
}  // namespace qcow
