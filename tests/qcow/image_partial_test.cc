#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "io/task_scope.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;

constexpr uint64_t kCluster = 65536;
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

}  // namespace
}  // namespace qcow
