// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/disk_share.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/task_scope.h"
#include "qcow/image/create.h"
#include "qcow/image/image.h"
#include "tests/qcow/image_files.h"
#include "tests/support/faulty_file_system.h"

namespace qcow {
namespace {

TEST(DiskShare, GivesAllOfItToOneAndAtLeastTwoWritesToEachOfMany) {
  DiskShare disk;
  disk.enter();
  EXPECT_EQ(disk.writes_each(8), 8u);
  EXPECT_EQ(disk.writes_each(100), DiskShare::kWritesTogether);
  for (int i = 1; i < 4; ++i) disk.enter();
  EXPECT_EQ(disk.writes_each(8), DiskShare::kWritesTogether / 4);
  for (int i = 4; i < 100; ++i) disk.enter();
  EXPECT_EQ(disk.writes_each(8), DiskShare::kWritesEachMin);
  for (int i = 0; i < 100; ++i) disk.leave();
  EXPECT_EQ(disk.writes_each(8), 8u);
}

/// Several images that are filled at once.
class ImagesOnOneDisk : public qcow_test::ImageFiles {
 protected:
  static constexpr size_t kImages = 8;
  static constexpr uint64_t kPieceBytes = 1 << 20, kPieces = 12;

  /// Fills all of them over a disk that stands still; returns the data writes that it was sent.
  int writes_in_flight(const std::shared_ptr<DiskShare>& disk) {
    int in_flight = 0;
    io::Event disk_moves(ring());
    support::FileFaults faults;
    faults.gate = [&](const support::FileCall& call) -> io::Event* {
      if (call.length != kPieceBytes) return nullptr;
      ++in_flight;
      return &disk_moves;
    };
    support::FaultyFileSystem files(runtime().files, faults);
    const io::Runtime real = runtime();
    const io::Runtime gated{real.executor, real.clock, files, real.buffers, real.random};
    int sent = 0;
    auto fill_all = [&](io::TaskScope& images) -> io::Task<void> {
      for (size_t i = 0; i < kImages; ++i) {
        images.spawn(fill(gated, file(fmt::format("{}.qcow2", i)), disk));
      }
      while (accepted_ < kImages)
        co_await io::sleep(ring(), real.clock, std::chrono::milliseconds(1));
      sent = in_flight;
      disk_moves.set();
    };
    run(io::run_scoped(fill_all));
    return sent;
  }

 private:
  size_t accepted_ = 0;  // images whose writes have all been accepted

  io::Task<void> fill(io::Runtime runtime, std::string path, std::shared_ptr<DiskShare> disk) {
    const CreateOptions create_options{.virtual_size = kPieces * kPieceBytes};
    co_await create(runtime, path, create_options);
    ImageOptions options;
    options.disk = std::move(disk);
    options.allocate_ahead = false;  // writes would wait for the space
    const std::unique_ptr<Image> image = co_await Image::open(runtime, path, options);
    for (uint64_t piece = 0; piece < kPieces; ++piece) {
      io::Buffer buffer = co_await runtime.buffers.acquire(kPieceBytes);
      std::ranges::fill(buffer.bytes(), std::byte{1});
      io::Task<void> writing = image->write(piece * kPieceBytes, std::move(buffer));
      co_await std::move(writing);
    }
    ++accepted_;
    co_await image->close();
  }
};

TEST_F(ImagesOnOneDisk, KeepNoMoreWritesInFlightThanTheDiskDigests) {
  size_t most = 0;  // each takes what is fair among those that have begun before it
  for (size_t begun = 1; begun <= kImages; ++begun) {
    most += std::clamp(DiskShare::kWritesTogether / begun, DiskShare::kWritesEachMin, size_t{8});
  }
  EXPECT_LE(writes_in_flight(std::make_shared<DiskShare>()), static_cast<int>(most));
}

TEST_F(ImagesOnOneDisk, KeepEightInFlightEachWhenNothingIsShared) {
  EXPECT_EQ(writes_in_flight(nullptr), static_cast<int>(8 * kImages));
}

}  // namespace
}  // namespace qcow
