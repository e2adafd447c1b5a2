// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "io/ring_thread.h"
#include "io/task_scope.h"
#include "qcow/image/partial_clusters.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

constexpr uint64_t kHalf = kCluster / 2;

/// Clusters that wait in memory for the rest of their bytes (WP2).
class ImagePartialClusters : public qcow_test::ImageModel {
 protected:
  /// An open overlay over a parent full of 0x55, which commits only when it is told to.
  void open_over_data(uint64_t size) {
    create("parent.qcow2", {.size = size});
    open("parent.qcow2");
    write(0, Bytes(size, std::byte{0x55}));
    close();
    create("a.qcow2", {.size = size, .parent = "parent.qcow2"});
    ImageOptions options;
    options.commit_interval = std::chrono::hours(1);
    open("a.qcow2", options);
  }

  /// Starts `change`, and a flush behind it; keeps the file as it is when the flush is answered.
  void flush_beside(io::Task<void> change) {
    auto flush_and_keep = [this]() -> io::Task<void> {
      co_await image_->flush();
      std::filesystem::copy_file(file("a.qcow2"), file("flushed.qcow2"));
    };
    auto both = [&](io::TaskScope& scope) -> io::Task<void> {
      scope.spawn(std::move(change));
      scope.spawn(flush_and_keep());
      co_return;
    };
    run(io::run_scoped(both));
  }
};

TEST_F(ImagePartialClusters, AreInAFlushThoughAnotherWriteIsJustMakingThemWhole) {
  open_over_data(4 << 20);
  write(0, Bytes(kHalf, std::byte{0}));  // answered before the flush is sent
  flush_beside(write_task(kHalf, Bytes(kHalf, std::byte{0})));
  EXPECT_EQ(qemu_io("flushed.qcow2", {"read -P 0 0 32k"}).find("failed"), std::string::npos);
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImagePartialClusters, AreInAFlushOrZeroedWhenAZeroRequestIsJustReplacingThem) {
  open_over_data(4 << 20);
  write(0, Bytes(kHalf, std::byte{7}));  // answered before the flush is sent
  std::fill_n(model_.begin(), kCluster, std::byte{0});
  flush_beside(image_->write_zeroes(0, kCluster, io::ZeroMode::may_unmap));
  const Bytes flushed = qemu_content("flushed.qcow2");
  EXPECT_TRUE(flushed[0] == std::byte{7} || flushed[0] == std::byte{0})
      << "the flush lost what was acknowledged before it: " << static_cast<int>(flushed[0]);
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImagePartialClusters, ThatCannotBeCompletedFailTheImageAtOnceThoughOthersOfTheBatchGoOn) {
  constexpr uint64_t kL1Field = 40, kOffsetBits = 0x00fffffffffffe00;
  create("parent.qcow2", {.size = 1 << 20});
  open("parent.qcow2");
  write(0, Bytes(1 << 20, std::byte{0x55}));
  close();
  const std::string parent = file("parent.qcow2");
  const auto l1 = qcow_test::peek_be<uint64_t>(parent, kL1Field);
  const uint64_t l2 = qcow_test::peek_be<uint64_t>(parent, l1) & kOffsetBits;
  create("a.qcow2", {.size = 1 << 20, .parent = "parent.qcow2"});
  qcow_test::patch_be<uint64_t>(parent, l2 + 2 * 8, 2);  // reserved bits of cluster 2

  bool told = false;
  ImageOptions options;
  options.commit_interval = std::chrono::hours(1);
  options.tuning.partial_bytes = kCluster;
  options.on_failure = [&](const std::exception_ptr&) { told = true; };
  open("a.qcow2", options);
  write(0, Bytes(kCluster, std::byte{1}));
  flush();
  io::Event disk(ring());
  const auto read_held = [&]() -> io::Task<void> {
    Bytes both(2 * kCluster);
    co_await image_->read(0, both);  // holds the clusters 0 and 1
  };
  const auto write_refused = [&]() -> io::Task<void> {
    io::Buffer buffer = co_await runtime().buffers.acquire(512);
    std::fill_n(buffer.data(), 512, std::byte{1});
    try {
      co_await image_->write(2 * kCluster, std::move(buffer));  // one too many: both are completed
      ADD_FAILURE() << "a corrupt entry of the parent was not met";
    } catch (const FormatError&) {
    }
  };
  write(kCluster, Bytes(512, std::byte{1}));
  io::TaskScope tasks;
  faults_.read_gate = [&](const support::FileCall&) { return &disk; };
  tasks.spawn(read_held());
  tasks.spawn(write_refused());
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(100)));
  EXPECT_TRUE(told) << "a commit could begin before the failure is known";
  disk.set();
  const auto end = [&]() -> io::Task<void> { co_await tasks.joined(); };
  run(end());
  run(image_->abandon());
  image_.reset();
}

TEST_F(ImagePartialClusters, ThatWaitForASlowDiskAreBoundedInMemory) {
  constexpr uint64_t kClusters = 4096;  // 256 MiB of them
  create("a.qcow2", {.size = kClusters * kCluster});
  ImageOptions options;
  options.commit_interval = std::chrono::hours(1);
  open("a.qcow2", options);
  uint64_t most = 0;
  const auto write_all = [&]() -> io::Task<void> {
    for (uint64_t i = 0; i < kClusters; ++i) {
      io::Buffer buffer = co_await runtime().buffers.acquire(512);
      std::fill_n(buffer.data(), 512, std::byte{1});
      io::Task<void> writing = image_->write(i * kCluster, std::move(buffer));
      co_await std::move(writing);
      most = std::max(most, runtime().buffers.bytes_in_use());
    }
  };
  run(write_all());
  EXPECT_LT(most, uint64_t{32} << 20);
  run(image_->abandon());
  image_.reset();
}

TEST_F(ImagePartialClusters, ThatAreZeroedInPartOnASlowDiskAreBoundedInMemory) {
  constexpr uint64_t kClusters = 1024;
  create("a.qcow2", {.size = kClusters * kCluster});
  open("a.qcow2");
  for (uint64_t i = 0; i < kClusters; ++i) write(i * kCluster, Bytes(kCluster, std::byte{7}));
  flush();
  io::Event disk(ring());
  faults_.gate = [&](const support::FileCall&) { return &disk; };
  uint64_t answered = 0;
  const auto zero_half = [&](uint64_t cluster) -> io::Task<void> {
    co_await image_->discard(cluster * kCluster, kHalf);
    ++answered;
  };
  io::TaskScope trims;
  for (uint64_t i = 0; i < kClusters; ++i) trims.spawn(zero_half(i));
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(200)));
  EXPECT_GT(answered, 0u);
  EXPECT_LT(runtime().buffers.bytes_in_use(), uint64_t{32} << 20);
  disk.set();
  run(trims.join());
  faults_.gate = {};
  for (uint64_t i = 0; i < kClusters; ++i) std::fill_n(&model_[i * kCluster], kHalf, std::byte{0});
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

/// Zeroes that need not be written, because the file was never written there.
class SparseClusters : public qcow_test::ImageModel {
 protected:
  /// Writes 512 bytes into each of `count` clusters, makes them durable; returns the bytes of data
  /// that went to the file for them.
  uint64_t write_a_little_into_each(uint64_t first, uint64_t count) {
    uint64_t bytes = 0;
    for (uint64_t i = first; i < first + count; ++i) {
      write(i * kCluster + 7 * 512, Bytes(512, std::byte{9}));
    }
    faults_.wrote = [&](uint64_t, std::span<const std::byte> written) { bytes += written.size(); };
    flush();
    faults_.wrote = {};
    return bytes;
  }
};

TEST_F(SparseClusters, StoreOnlyWhatWasWrittenIntoThem) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2");
  write_random(0, 1 << 20);  // the space behind it is being allocated
  flush();
  EXPECT_LE(write_a_little_into_each(100, 64), 64 * 4096 + 4 * kCluster);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(SparseClusters, AreStoredWholeWhereTheFileHoldsSomethingOld) {
  create("a.qcow2", {.size = 64 << 20});
  // What an earlier process left behind the last cluster, and never mapped.
  const uint64_t end = qcow_test::file_bytes(file("a.qcow2"));
  std::filesystem::resize_file(file("a.qcow2"), end + (16 << 20));
  qcow_test::patch(file("a.qcow2"), end, Bytes(16 << 20, std::byte{0xee}));
  open("a.qcow2");
  write_a_little_into_each(3, 64);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(SparseClusters, AreStoredWholeInThePlaceOfAClusterThatWasZeroed) {
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  write_random(0, 1 << 20);
  flush();
  write_random(4 << 20, 1 << 20);
  zero(4 << 20, 1 << 20);
  write_a_little_into_each((4 << 20) / kCluster, 16);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(SparseClusters, AreStoredWholeOverAParentsData) {
  create("parent.qcow2", {.size = 8 << 20});
  open("parent.qcow2");
  write_random(0, 4 << 20);
  close();
  create("a.qcow2", {.size = 8 << 20, .parent = "parent.qcow2"});
  open("a.qcow2");
  write_a_little_into_each(0, 128);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(SparseClusters, OfManySmallPiecesAreWrittenAtOnce) {
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  write_random(0, 1 << 20);
  flush();
  for (uint64_t at = 0; at < kCluster; at += 8192) {
    write((4 << 20) + at, Bytes(512, std::byte{5}));
  }
  int writes = 0;
  faults_.fail = [&](const support::FileCall& call) {
    if (call.verb == "write" && call.length == kCluster) ++writes;
    return 0;
  };
  flush();
  faults_.fail = {};
  EXPECT_GE(writes, 1);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST(PartialClusterTest, IsRoundedOutToUnitsWithZeroes) {
  io::RingRuntime parts;
  PartialClusters clusters(parts.runtime().buffers, {.virtual_size = kCluster});
  PartialCluster& partial = clusters.get({0});
  std::ranges::fill(partial.bytes.bytes(), std::byte{0xaa});
  partial.put(5000, Bytes(100, std::byte{1}));
  partial.put(9000, Bytes(4000, std::byte{1}));
  partial.put(60'000, Bytes(5536, std::byte{1}));
  partial.round_out(4096);
  const std::vector<ByteRange> rounded = {{4096, 16384}, {57344, 65536}};
  EXPECT_EQ(partial.valid, rounded);
  EXPECT_EQ(partial.bytes.data()[4096], std::byte{0});
  EXPECT_EQ(partial.bytes.data()[5000], std::byte{1});
  EXPECT_EQ(partial.bytes.data()[8500], std::byte{0});
  EXPECT_EQ(partial.bytes.data()[16383], std::byte{0});
  EXPECT_EQ(partial.bytes.data()[65535], std::byte{1});
  EXPECT_EQ(partial.valid_bytes(), 16384u - 4096 + 8192);
}

}  // namespace
}  // namespace qcow
