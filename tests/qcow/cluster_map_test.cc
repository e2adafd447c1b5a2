// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/cluster_map.h"

#include <algorithm>

#include "io/task_scope.h"
#include "qcow/image/create.h"
#include "qcow/image/image.h"
#include "tests/qcow/image_files.h"
#include "tests/support/faulty_file_system.h"

namespace qcow {
namespace {

/// An image of more L2 tables than are kept in memory: six of 2 MiB, each of which maps 512 GiB.
class MoreTablesThanTheCacheHolds : public qcow_test::ImageFiles {
 protected:
  static constexpr uint64_t kTables = 10, kTableGuestBytes = uint64_t{512} << 30;
  static constexpr uint64_t kClusterBytes = 2 << 20;
  static constexpr size_t kPieceBytes = 8192;

  io::Task<void> write(Image& image, uint64_t offset, int value) {
    io::Buffer buffer = co_await runtime().buffers.acquire(kPieceBytes);
    std::ranges::fill(buffer.bytes(), static_cast<std::byte>(value));
    io::Task<void> writing = image.write(offset, std::move(buffer));
    co_await std::move(writing);
  }
  io::Task<int> read(Image& image, uint64_t offset) {
    std::vector<std::byte> bytes(kPieceBytes);
    co_await image.read(offset, bytes);
    co_return std::to_integer<int>(bytes.back());
  }
  io::Task<void> touch_other_tables(Image& image) {
    for (uint64_t table = 1; table < kTables; ++table) {
      EXPECT_EQ(co_await read(image, table * kTableGuestBytes), 1);
    }
  }
};

TEST_F(MoreTablesThanTheCacheHolds, ATableIsNotReadFromTheDiskWhileACommitIsWritingIt) {
  support::FileFaults faults;
  io::Event begins(ring()), goes_on(ring());
  bool armed = false;
  faults.gate = [&](const support::FileCall& call) -> io::Event* {
    if (!armed || call.length != L2Table::kPartBytes) return nullptr;
    begins.set();
    return &goes_on;
  };
  support::FaultyFileSystem files(runtime().files, faults);
  const io::Runtime real = runtime();
  const io::Runtime gated{real.executor, real.clock, files, real.buffers, real.random};
  auto body = [&](io::TaskScope& scope) -> io::Task<void> {
    const CreateOptions options{.virtual_size = kTables * kTableGuestBytes, .cluster_bits = 21};
    co_await create(gated, file("a.qcow2"), options);
    ImageOptions image_options;
    image_options.commit_interval = std::chrono::hours(1);
    auto image = co_await Image::open(gated, file("a.qcow2"), image_options);
    for (uint64_t table = 0; table < kTables; ++table) {
      co_await write(*image, table * kTableGuestBytes, 1);
    }
    co_await image->close();
    image.reset();  // and its lock
    image = co_await Image::open(gated, file("a.qcow2"), image_options);
    co_await write(*image, kClusterBytes, 2);
    armed = true;
    io::Task<void> flushing = image->flush();
    scope.spawn(std::move(flushing));
    co_await begins.wait();
    co_await touch_other_tables(*image);
    EXPECT_EQ(co_await read(*image, kClusterBytes), 2);
    armed = false;
    goes_on.set();
    co_await write(*image, 2 * kClusterBytes, 3);
    co_await image->flush();
    co_await touch_other_tables(*image);
    EXPECT_EQ(co_await read(*image, kClusterBytes), 2);
    EXPECT_EQ(co_await read(*image, 2 * kClusterBytes), 3);
    co_await image->close();
  };
  run(io::run_scoped(std::move(body)));
  qemu_img("check a.qcow2");
}

}  // namespace
}  // namespace qcow
