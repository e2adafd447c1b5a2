#include "qcow/disk_share.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/task_scope.h"
#include "qcow/create.h"
#include "qcow/image.h"
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

  /// Fills all of them; returns the most data writes that were in flight together.
  int most_writes_in_flight(const std::shared_ptr<DiskShare>& disk) {
    int in_flight = 0, most = 0;
    support::FileFaults faults;
    faults.fail = [&](const support::FileCall& call) {
      if (call.verb == "write" && call.length == kPieceBytes) most = std::max(most, ++in_flight);
      return 0;
    };
    faults.wrote = [&](uint64_t, std::span<const std::byte> bytes) {
      if (bytes.size() == kPieceBytes) --in_flight;
    };
    support::FaultyFileSystem files(runtime().files, faults);
    const io::Runtime real = runtime();
    const io::Runtime counted{real.executor, real.clock, files, real.buffers, real.random};
    auto fill_all = [&](io::TaskScope& images) -> io::Task<void> {
      for (size_t i = 0; i < kImages; ++i) {
        images.spawn(fill(counted, file(fmt::format("{}.qcow2", i)), disk));
      }
      co_return;
    };
    run(io::run_scoped(fill_all));
    return most;
  }

 private:
  static io::Task<void> fill(io::Runtime runtime, std::string path,
                             std::shared_ptr<DiskShare> disk) {
    const CreateOptions create_options{.virtual_size = kPieces * kPieceBytes};
    co_await create(runtime, path, create_options);
    ImageOptions options;
    options.disk = std::move(disk);
    const std::unique_ptr<Image> image = co_await Image::open(runtime, path, options);
    for (uint64_t piece = 0; piece < kPieces; ++piece) {
      io::Buffer buffer = co_await runtime.buffers.acquire(kPieceBytes);
      std::ranges::fill(buffer.bytes(), std::byte{1});
      io::Task<void> writing = image->write(piece * kPieceBytes, std::move(buffer));
      co_await std::move(writing);
    }
    co_await image->close();
  }
};

TEST_F(ImagesOnOneDisk, KeepNoMoreWritesInFlightThanTheDiskDigests) {
  EXPECT_LE(most_writes_in_flight(std::make_shared<DiskShare>()),
            static_cast<int>(DiskShare::kWritesTogether + DiskShare::kWritesEachMin * kImages));
}

TEST_F(ImagesOnOneDisk, FillItsQueueWhenNothingIsShared) {
  EXPECT_GE(most_writes_in_flight(nullptr), 32);
}

}  // namespace
}  // namespace qcow
