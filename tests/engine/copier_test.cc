// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/copier.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <stdexcept>

#include "io/sync.h"
#include "tests/support/ring_fixture.h"

/// Copies from disk to disk.
namespace engine {
namespace {

constexpr uint64_t kMiB = 1 << 20;

/// Says which ranges are zero, counts what is asked of it, and fails on demand.
class Disk final : public io::BlockDevice {
 public:
  Disk(uint64_t size, io::Executor& executor) : bytes_(size), executor_(executor) {}

  uint64_t size() const override { return bytes_.size(); }
  uint32_t preferred_block_size() const override { return 4096; }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    if (offset >= fail_from_) throw std::runtime_error("bad sector");
    co_await io::NextTurn{executor_};  // others come first, as when a disk is read
    std::memcpy(into.data(), &bytes_[offset], into.size());
    bytes_read_ += into.size();
  }
  io::Task<void> write(uint64_t offset, io::Buffer from) override {
    std::memcpy(&bytes_[offset], from.data(), from.size());
    bytes_written_ += from.size();
    co_return;
  }
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode) override {
    std::memset(&bytes_[offset], 0, length);
    bytes_zeroed_ += length;
    co_return;
  }
  io::Task<void> discard(uint64_t offset, uint64_t length) override {
    return write_zeroes(offset, length, io::ZeroMode::may_unmap);
  }
  io::Task<void> flush() override {
    ++flushes_;
    co_return;
  }
  /// Clusters of 64 KiB; at most three extents at a time, so that a plan takes many calls.
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length, size_t) override {
    std::vector<io::Extent> found;
    for (uint64_t at = offset; at < offset + length && found.size() < 3;) {
      const uint64_t end = std::min((at / 65536 + 1) * 65536, offset + length);
      const bool zero = std::all_of(&bytes_[at], &bytes_[at] + (end - at),
                                    [](std::byte byte) { return byte == std::byte{0}; });
      found.push_back({end - at, zero, zero ? 0u : 1u});
      at = end;
    }
    co_return found;
  }

  std::vector<std::byte> bytes_;
  uint64_t bytes_read_ = 0, bytes_written_ = 0, bytes_zeroed_ = 0, fail_from_ = ~uint64_t{0};
  int flushes_ = 0;

 private:
  io::Executor& executor_;
};

class Copies : public support::RingTest {
 protected:
  Copies() {
    std::mt19937_64 dice(1);
    for (uint64_t at = 0; at < source_.size(); at += 65536) {
      if (dice() % 3 == 0) continue;
      const uint64_t length = std::min<uint64_t>(65536, source_.size() - at);
      for (uint64_t i = 0; i < length; ++i) source_.bytes_[at + i] = std::byte(dice() % 255 + 1);
    }
  }
  CopyOptions options() {
    CopyOptions options;
    options.sources = {&source_};
    options.targets = {&target_};
    options.requests = 4;
    return options;
  }

  Disk source_{8 * kMiB + 512, runtime().executor}, target_{8 * kMiB + 512, runtime().executor};
};

TEST_F(Copies, AreEqualAndDurableWhateverTheTargetHeld) {
  std::fill(target_.bytes_.begin(), target_.bytes_.end(), std::byte{7});
  const CopyProgress done = run(copy_disk(runtime(), options()));
  EXPECT_TRUE(target_.bytes_ == source_.bytes_);
  EXPECT_EQ(done.data + done.zeroes, source_.size());
  EXPECT_EQ(done.done_until, source_.size());
  EXPECT_EQ(target_.bytes_zeroed_, done.zeroes);
  EXPECT_EQ(target_.flushes_, 1);
}

TEST_F(Copies, DoNothingAboutZeroesOfAnEmptyTarget) {
  CopyOptions to_empty = options();
  to_empty.target_is_zero = true;
  const CopyProgress done = run(copy_disk(runtime(), std::move(to_empty)));
  EXPECT_TRUE(target_.bytes_ == source_.bytes_);
  EXPECT_EQ(target_.bytes_zeroed_, 0u);
  EXPECT_EQ(source_.bytes_read_, done.data) << "holes are not read";
}

/// Everything is data, as far as anybody says.
io::Task<std::vector<CopyRange>> all_data(uint64_t offset, uint64_t length, uint64_t& until) {
  until = offset + length;
  co_return std::vector<CopyRange>(1, CopyRange{offset, length, false});
}

TEST_F(Copies, FindZeroesThatNobodySaysAnythingAbout) {
  std::fill(target_.bytes_.begin(), target_.bytes_.end(), std::byte{7});
  CopyOptions searching = options();
  searching.plan = all_data;
  searching.find_zeroes = true;
  searching.request_bytes = 65536;
  const CopyProgress done = run(copy_disk(runtime(), std::move(searching)));
  EXPECT_TRUE(target_.bytes_ == source_.bytes_);
  EXPECT_GT(done.zeroes, 0u);
  EXPECT_EQ(target_.bytes_zeroed_, done.zeroes);
  EXPECT_EQ(target_.bytes_written_, done.data);
  EXPECT_EQ(done.data + done.zeroes, source_.size());
}

TEST_F(Copies, KeepToARateAndSayWhatTheTargetHasAccepted) {
  CopyOptions slow = options();
  slow.plan = all_data;
  slow.bytes_per_second = 32 * kMiB;
  uint64_t accepted = 0;
  slow.on_accepted = [&](const CopyRange& range) {
    accepted += range.length;
    EXPECT_TRUE(std::equal(&source_.bytes_[range.offset],
                           &source_.bytes_[range.offset] + range.length,
                           &target_.bytes_[range.offset]));
  };
  const io::SteadyTime begun = runtime().clock.now();
  run(copy_disk(runtime(), std::move(slow)));
  EXPECT_EQ(accepted, source_.size());
  // 8 MiB and a sector; the last piece need not wait for its own time.
  EXPECT_GE(runtime().clock.now() - begun, std::chrono::milliseconds(240));
}

TEST_F(Copies, StartWhereTheyAreTold) {
  CopyOptions rest = options();
  rest.start = 3 * kMiB + 4096;
  run(copy_disk(runtime(), std::move(rest)));
  const auto middle = static_cast<ptrdiff_t>(3 * kMiB + 4096);
  EXPECT_TRUE(std::equal(source_.bytes_.begin() + middle, source_.bytes_.end(),
                         target_.bytes_.begin() + middle));
  EXPECT_TRUE(std::all_of(target_.bytes_.begin(), target_.bytes_.begin() + middle,
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_F(Copies, TouchOnlyWhatIsPlanned) {
  CopyOptions some = options();
  some.plan = [](uint64_t offset, uint64_t length,
                 uint64_t& until) -> io::Task<std::vector<CopyRange>> {
    until = std::min(offset + kMiB, offset + length);
    std::vector<CopyRange> ranges = {{offset, 512, false}};
    co_return ranges;
  };
  const CopyProgress done = run(copy_disk(runtime(), std::move(some)));
  EXPECT_EQ(target_.bytes_written_, 9 * 512u);
  EXPECT_EQ(done.skipped, source_.size() - 9 * 512);
}

TEST_F(Copies, EndWithTheFirstFailureAndNothingUnderWay) {
  source_.fail_from_ = 4 * kMiB;
  EXPECT_THROW(run(copy_disk(runtime(), options())), std::runtime_error);
  EXPECT_EQ(target_.flushes_, 0) << "a copy that failed is not called durable";
}

TEST_F(Copies, UseEverySourceAndEveryTarget) {
  Disk second{source_.size(), runtime().executor};
  second.bytes_ = source_.bytes_;
  CopyOptions wide = options();
  wide.sources.push_back(&second);
  run(copy_disk(runtime(), std::move(wide)));
  EXPECT_TRUE(target_.bytes_ == source_.bytes_);
  EXPECT_GT(second.bytes_read_, 0u);
  EXPECT_GT(source_.bytes_read_, 0u);
}

TEST_F(Copies, ADiskOfNoBytesIsCopied) {
  Disk nothing{0, runtime().executor}, also_nothing{0, runtime().executor};
  CopyOptions empty = options();
  empty.sources = {&nothing};
  empty.targets = {&also_nothing};
  EXPECT_EQ(run(copy_disk(runtime(), std::move(empty))).size, 0u);
}

}  // namespace
}  // namespace engine
