// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "io/task_scope.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::file_bytes;
using qcow_test::kCluster;

class ImageZeroes : public qcow_test::ImageModel {
 protected:
  /// A parent full of data, and an open overlay on it.
  void open_over_data(uint64_t size, uint64_t parent_size) {
    create("parent.qcow2", {.size = parent_size});
    open("parent.qcow2");
    write(0, Bytes(parent_size, std::byte{0x55}));
    close();
    create("a.qcow2", {.size = size, .parent = "parent.qcow2"});
    open("a.qcow2");
  }
  uint64_t extents_of_depth(uint32_t depth) {
    uint64_t bytes = 0;
    for (const io::Extent& extent : run(image_->extents(0, image_->size(), 10'000))) {
      if (extent.depth == depth) bytes += extent.length;
    }
    return bytes;
  }
};

TEST_F(ImageZeroes, OverNothingStoreNothing) {  // WP8
  create("a.qcow2", {.size = 64 << 20});
  const uint64_t before = file_bytes(file("a.qcow2"));
  open("a.qcow2");
  zero(0, 64 << 20);
  zero(100, 1000);
  discard(5 << 20, 77'777);
  EXPECT_EQ(extents_of_depth(0), 64u << 20);
  close();
  EXPECT_EQ(image_, nullptr);
  EXPECT_LE(file_bytes(file("a.qcow2")), round_up(before, kCluster));
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, HideTheParentsData) {  // WP9
  open_over_data(8 << 20, 8 << 20);
  zero(kCluster, 4 * kCluster);
  discard(10 * kCluster, kCluster);
  zero(20 * kCluster + 5, 3 * kCluster);
  discard(40 * kCluster + 1, 10);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, OverAGrownTailStoreNothing) {  // WP14, WP8
  open_over_data(8 << 20, (2 << 20) + 512);
  zero(3 << 20, 5 << 20);
  EXPECT_EQ(extents_of_depth(1), 0u);
  write(kCluster * 32, Bytes(512, std::byte{1}));  // the cluster in which the parent ends
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, ThatAreWrittenAreStoredAsZeroes) {  // WP6, C19
  open_over_data(32 << 20, 32 << 20);
  const uint64_t before = file_bytes(file("a.qcow2"));
  write(0, Bytes(32 << 20));
  expect_reads_as_model();
  close();
  EXPECT_LE(file_bytes(file("a.qcow2")), before + 512 * 1024);
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, WithoutHoleTakeNoSpaceAndHideTheParent) {
  open_over_data(8 << 20, 8 << 20);
  zero(100, 2 << 20, io::ZeroMode::no_hole);
  zero(4 << 20, 4 << 20, io::ZeroMode::no_hole);
  flush();
  EXPECT_EQ(image_->counters().bytes_stored, 2 * kCluster) << "the partial clusters at the ends";
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, WithoutHoleAllocateWhenToldTo) {  // WP12
  create("a.qcow2", {.size = 4 << 20});
  ImageOptions options;
  options.no_hole = NoHole::allocate;
  open("a.qcow2", options);
  zero(100, 2 << 20, io::ZeroMode::no_hole);
  flush();
  EXPECT_EQ(extents_of_depth(1), (2u << 20) + kCluster);
  EXPECT_EQ(image_->counters().bytes_stored, (2u << 20) + kCluster);
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, FastOnesNeverWriteData) {  // C10
  open_over_data(8 << 20, 4 << 20);
  const auto fails = [&](uint64_t offset, uint64_t length) {
    try {
      run(image_->write_zeroes(offset, length, io::ZeroMode::fast_or_fail));
    } catch (const std::system_error& error) {
      return error.code().value() == ENOTSUP;
    }
    return false;
  };
  EXPECT_TRUE(fails(1, 100));
  EXPECT_TRUE(fails(kCluster, kCluster + 1));
  expect_reads_as_model();
  EXPECT_EQ(image_->failure(), nullptr) << "a refusal is no failure";
  zero(kCluster, 2 * kCluster, io::ZeroMode::fast_or_fail);
  zero((5 << 20) + 7, 100, io::ZeroMode::fast_or_fail);  // reads zero already
  zero((7 << 20), 1 << 20, io::ZeroMode::fast_or_fail);  // to the end of the disk
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, TheLastShortClusterCountsAsWhole) {  // C10, WP5
  create("parent.qcow2", {.size = 3 * kCluster + 1000});
  open("parent.qcow2");
  write(0, Bytes(3 * kCluster + 1000, std::byte{7}));
  close();
  create("a.qcow2", {.size = 3 * kCluster + 1000, .parent = "parent.qcow2"});
  open("a.qcow2");
  zero(2 * kCluster, kCluster + 1000, io::ZeroMode::fast_or_fail);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, RewrittenClustersKeepTheirHostCluster) {  // LT9, LT10
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(4 << 20, std::byte{1}));
  flush();
  const uint64_t after_first = image_->counters().file_bytes;
  for (int round = 0; round < 20; ++round) {
    zero(0, 4 << 20);
    if (round % 3 == 0) flush();
    write(0, Bytes(4 << 20, static_cast<std::byte>(round + 2)));
    if (round % 4 == 0) flush();
    discard((1 << 20) + 1000, 1 << 20);
    write_random(1 << 20, (1 << 20) + 4000);
  }
  EXPECT_EQ(image_->counters().file_bytes, after_first);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, GiveTheirHostClustersBackAtTheEnd) {  // LT12
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(4 << 20, std::byte{1}));
  flush();
  discard(kCluster, 10 * kCluster);
  discard(3 << 20, 1 << 20);
  run(image_->seal());
  close();
  expect_valid("a.qcow2");
  EXPECT_LT(file_bytes(file("a.qcow2")), (4u << 20) - (1 << 20) + 8 * kCluster);
}

TEST_F(ImageZeroes, InAFloodNeverFindTheFileTooSmall) {
  constexpr uint64_t kSmall = 512;
  constexpr uint64_t kDisk = 8 << 20;
  create("parent.qcow2", {.size = kDisk, .cluster_bits = 16});
  open("parent.qcow2");
  write(0, Bytes(kDisk, std::byte{0x55}));
  close();
  create("a.qcow2", {.size = kDisk, .cluster_bits = 9, .parent = "parent.qcow2"});
  ImageOptions options;
  options.tuning.refcount_cover_bytes = 1024 * kSmall;  // so that few requests are many
  options.commit_bytes = 256 * kSmall;
  options.tuning.partial_bytes = 32 * 4096;
  options.commit_interval = std::chrono::hours(1);
  open("a.qcow2", options);
  auto flood = [&](io::TaskScope& scope) -> io::Task<void> {
    for (uint64_t at = 0; at < kDisk; at += kSmall) scope.spawn(image_->discard(at + 1, 100));
    co_return;
  };
  run(io::run_scoped(flood));
  for (uint64_t at = 0; at < kDisk; at += kSmall) {
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(at + 1), 100, std::byte{0});
  }
  EXPECT_EQ(image_->failure(), nullptr);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageZeroes, OfOneTebibyteOverDataAreQuick) {
  create("parent.qcow2", {.size = uint64_t{1} << 30});
  model_.clear();
  open("parent.qcow2");
  {
    io::Buffer piece = run(runtime().buffers.acquire(kCluster));
    std::fill_n(piece.data(), kCluster, std::byte{9});
    run(image_->write(512 << 20, std::move(piece)));
  }
  close();
  CreateOptions options;
  options.virtual_size = uint64_t{1} << 40;
  options.parent = NewParent{.name = "parent.qcow2"};
  options.parent->uuid = header("parent.qcow2").record->image_uuid;
  run(qcow::create(runtime(), file("a.qcow2"), options));
  open("a.qcow2");
  for (uint64_t at = 0; at < options.virtual_size; at += 32 << 20) {
    run(image_->write_zeroes(at, 32 << 20, io::ZeroMode::may_unmap));
  }
  EXPECT_EQ(image_->counters().bytes_stored, 0u);
  close();
  EXPECT_NE(check("a.qcow2").find("No errors were found"), std::string::npos);
  EXPECT_LT(file_bytes(file("a.qcow2")), 1u << 20) << "the parents read as zero almost everywhere";
}

}  // namespace
}  // namespace qcow
