// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

/// A file on a file system with little room: which of its blocks have space, and how much is left.
/// As ext4 does, an allocation that does not fit takes what there is.
class SmallFileSystem {
 public:
  uint64_t blocks_left = UINT64_MAX;

  int judge(const support::FileCall& call) {
    const uint64_t first = call.offset / kBlock;
    const uint64_t end = (call.offset + call.length + kBlock - 1) / kBlock;
    if (call.verb == "write" || call.verb == "allocate") return take(first, end);
    if (call.verb == "truncate") give_back(first, blocks_.size());
    if (call.verb == "punch") give_back(first, end);
    return 0;
  }

 private:
  static constexpr uint64_t kBlock = 4096;

  int take(uint64_t first, uint64_t end) {
    if (blocks_.size() < end) blocks_.resize(end);
    for (uint64_t block = first; block < end; ++block) {
      if (blocks_[block]) continue;
      if (blocks_left == 0) return ENOSPC;
      blocks_[block] = true;
      --blocks_left;
    }
    return 0;
  }
  void give_back(uint64_t first, uint64_t end) {
    for (uint64_t block = first; block < std::min<uint64_t>(end, blocks_.size()); ++block) {
      if (blocks_[block]) ++blocks_left;
      blocks_[block] = false;
    }
  }

  std::vector<bool> blocks_;
};

/// Images on a file system that has become full.
class ImageWithoutRoom : public qcow_test::ImageModel {
 protected:
  ImageWithoutRoom() {
    faults_.fail = [this](const support::FileCall& call) { return small_.judge(call); };
    options_.commit_interval = std::chrono::hours(1);
  }

  void set_room(uint64_t bytes) { small_.blocks_left = bytes / 4096; }

  /// Writes pieces from `at` on until one is refused; returns how many bytes were accepted.
  uint64_t write_until_refused(uint64_t at, uint64_t piece) {
    const uint64_t from = at;
    for (; at + piece <= model_.size(); at += piece) {
      const Bytes before(model_.begin() + static_cast<ptrdiff_t>(at),
                         model_.begin() + static_cast<ptrdiff_t>(at + piece));
      const int error = error_of([&] { write(at, Bytes(piece, std::byte{3})); });
      if (error == 0) continue;
      EXPECT_EQ(error, ENOSPC);
      std::copy(before.begin(), before.end(), model_.begin() + static_cast<ptrdiff_t>(at));
      return at - from;
    }
    ADD_FAILURE() << "never refused";
    return at - from;
  }

  /// Nothing is lost, and when there is room again it goes on.
  void expect_as_good_as_ever() {
    flush();
    EXPECT_EQ(image_->failure(), nullptr);
    expect_reads_as_model();
    small_.blocks_left = UINT64_MAX;
    write_random(0, kCluster);
    flush();
    write_random(kCluster, model_.size() / 2);
    close();
    expect_valid("a.qcow2");
  }

  SmallFileSystem small_;
  ImageOptions options_;
};

TEST_F(ImageWithoutRoom, RefusesWhatWouldGoIntoTheHolesOfClustersThatWereDiscardedBeforeARestart) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(48 << 20, std::byte{1}));
  flush();
  discard(1 << 20, 40 << 20);
  close();
  set_room(3 << 20);
  open("a.qcow2", options_);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, UsesThoseHolesFirstAndGivesTheSpaceOfTheOthersBackAtTheEnd) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(48 << 20, std::byte{1}));
  flush();
  discard(1 << 20, 40 << 20);
  close();
  const uint64_t length = qcow_test::file_bytes(file("a.qcow2"));
  set_room(1 << 30);
  open("a.qcow2", options_);
  write(1 << 20, Bytes(8 << 20, std::byte{2}));
  flush();
  write(9 << 20, Bytes(8 << 20, std::byte{2}));
  close();
  EXPECT_EQ(qcow_test::file_bytes(file("a.qcow2")), length);
  EXPECT_EQ(small_.blocks_left, ((1u << 30) - (16u << 20)) / 4096);
  expect_valid("a.qcow2");
}

TEST_F(ImageWithoutRoom, RefusesWhatWouldGoIntoASparseTailOfTheFile) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(1 << 20, std::byte{1}));
  close();
  std::filesystem::resize_file(file("a.qcow2"), 48 << 20);
  set_room(3 << 20);
  open("a.qcow2", options_);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, HasRoomForTheManyRefcountBlocksOfSmallClusters) {
  create("a.qcow2", {.size = 8 << 20, .cluster_bits = 9, .refcount_order = 6});
  options_.tuning.allocate_step_bytes = 2 << 20;
  options_.tuning.refcount_cover_bytes = 4 << 20;
  options_.commit_bytes = 2 << 20;
  open("a.qcow2", options_);
  write(0, Bytes(1 << 20, std::byte{1}));
  flush();
  set_room(0);
  EXPECT_GE(write_until_refused(1 << 20, 8192), 512u << 10);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, AsksForSpaceAgainAfterAnAttemptThatFailedForAnotherReason) {
  create("a.qcow2", {.size = 64 << 20});
  options_.tuning.allocate_step_bytes = 1 << 20;
  open("a.qcow2", options_);
  faults_.fail = [](const support::FileCall& call) { return call.verb == "allocate" ? EIO : 0; };
  write(0, Bytes(kCluster, std::byte{1}));
  faults_.fail = [this](const support::FileCall& call) { return small_.judge(call); };
  write(kCluster, Bytes(kCluster, std::byte{1}));
  flush();
  set_room(3 << 20);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
}

}  // namespace
}  // namespace qcow
