// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <map>

#include "qcow/image/create.h"
#include "qcow/image/image.h"
#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

uint64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoull(line.substr(field.size() + 1)) << 10;
  }
  return 0;
}

struct Content {
  uint64_t size = 0;
  std::vector<std::byte> kept;
};

/// A file that keeps what lies in its first 8 MiB, where an image's header and first tables are,
/// and forgets the rest: so a disk of any size can be written.
class ForgetfulFile final : public io::File {
 public:
  ForgetfulFile(std::string path, std::shared_ptr<Content> content)
      : path_(std::move(path)), content_(std::move(content)) {}
  const std::string& path() const override { return path_; }
  uint32_t direct_alignment() const override { return 4096; }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    std::fill(into.begin(), into.end(), std::byte{0});
    if (offset < content_->kept.size()) {
      const size_t count = std::min<size_t>(into.size(), content_->kept.size() - offset);
      std::memcpy(into.data(), &content_->kept[offset], count);
    }
    co_return;
  }
  io::Task<void> write(uint64_t offset, std::span<const std::byte> from) override {
    content_->size = std::max(content_->size, offset + from.size());
    const bool made = offset + from.size() <= kMadeBytes;
    if (!made && (offset + from.size() > kKeptBytes || from.size() > 65536)) co_return;
    if (content_->kept.size() < offset + from.size()) content_->kept.resize(offset + from.size());
    std::memcpy(&content_->kept[offset], from.data(), from.size());
  }
  io::Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) {
      co_await write(offset, {static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
      offset += piece.iov_len;
    }
  }
  io::Task<void> sync_data() override { co_return; }
  io::Task<void> sync() override { co_return; }
  io::Task<uint64_t> size() override { co_return content_->size; }
  io::Task<void> truncate(uint64_t size) override {
    content_->size = size;
    co_return;
  }
  io::Task<bool> allocate(uint64_t offset, uint64_t length) override {
    content_->size = std::max(content_->size, offset + length);
    co_return true;
  }
  io::Task<bool> punch_hole(uint64_t, uint64_t) override { co_return true; }
  io::Task<uint64_t> allocated_bytes() override { co_return content_->size; }
  bool lock_byte_shared(uint64_t) override { return true; }
  void unlock_byte(uint64_t) override {}
  bool byte_is_locked_elsewhere(uint64_t) override { return false; }
  io::Task<bool> is_open_elsewhere() override { co_return false; }

 private:
  static constexpr uint64_t kKeptBytes = 8 << 20;
  static constexpr uint64_t kMadeBytes = 1 << 20;  // what create() writes, at once
  std::string path_;
  std::shared_ptr<Content> content_;
};

/// One file, whatever its name.
class OneFile final : public io::FileSystem {
 public:
  io::Task<std::unique_ptr<io::File>> open(std::string path, io::OpenMode) override {
    co_return std::make_unique<ForgetfulFile>(std::move(path), content_);
  }
  io::Task<void> rename(std::string, std::string, bool) override { co_return; }
  io::Task<void> remove(std::string) override { co_return; }
  io::Task<void> remove_directory(std::string) override { co_return; }
  io::Task<void> make_directories(std::string) override { co_return; }
  io::Task<void> make_symlink(std::string, std::string) override { co_return; }
  io::Task<void> sync_directory(std::string) override { co_return; }
  io::Task<std::vector<io::DirectoryEntry>> list(std::string) override {
    co_return std::vector<io::DirectoryEntry>();
  }
  io::Task<std::optional<io::FileStatus>> status(std::string, bool) override {
    co_return std::nullopt;
  }
  io::Task<std::string> resolve(std::string path) override { co_return path; }
  io::Task<io::SpaceStatus> space(std::string) override { co_return io::SpaceStatus{}; }

 private:
  std::shared_ptr<Content> content_ = std::make_shared<Content>();
};

class ImageMemory : public qcow_test::ImageFiles {
 protected:
  void SetUp() override {
    if (std::getenv("VARVE_SANITIZED") != nullptr) GTEST_SKIP() << "a sanitizer keeps freed memory";
  }
};

TEST_F(ImageMemory, StaysWithin48MibWhileADiskOf16TibIsWrittenDensely) {
  constexpr uint64_t kTib = uint64_t{1} << 40;
  constexpr uint64_t kDiskBytes = 16 * kTib;
  // Far more than any bound on memory covers; all of it takes ten seconds.
  const uint64_t written = std::getenv("VARVE_LONG") != nullptr ? kDiskBytes : 2 * kTib;
  OneFile files;
  const io::Runtime real = runtime();
  const io::Runtime simulated{real.executor, real.clock, files, real.buffers, real.random};
  run(create(simulated, "/a.qcow2", {.virtual_size = kDiskBytes}));
  const uint64_t before = status_bytes("VmRSS");
  uint64_t most = 0;
  const auto fill = [&]() -> io::Task<void> {
    const std::unique_ptr<Image> image =
        co_await Image::open(simulated, "/a.qcow2", ImageOptions());
    for (uint64_t at = 0; at < written; at += io::BufferPool::kBufferBytesMax) {
      io::Buffer buffer = co_await real.buffers.acquire(io::BufferPool::kBufferBytesMax);
      for (size_t i = 0; i < buffer.size(); i += 65536) buffer.data()[i] = std::byte{1};
      io::Task<void> writing = image->write(at, std::move(buffer));
      co_await std::move(writing);
      if (at % (uint64_t{16} << 30) == 0) most = std::max(most, status_bytes("VmRSS"));
    }
    co_await image->flush();
    most = std::max(most, status_bytes("VmRSS"));
    EXPECT_EQ(image->counters().bytes_stored, written);
    co_await image->abandon();
  };
  run(fill());
  RecordProperty("mib", static_cast<int>((most - before) >> 20));
  EXPECT_LT(most - before, uint64_t{48} << 20) << "for " << written << " bytes written";
}

TEST_F(ImageMemory, StaysWithin48MibWhileSmallWritesScatterOverADiskOf2Tib) {
  constexpr uint64_t kDiskBytes = uint64_t{2} << 40;
  constexpr uint64_t kWrites = 4096;
  OneFile files;
  const io::Runtime real = runtime();
  const io::Runtime simulated{real.executor, real.clock, files, real.buffers, real.random};
  run(create(simulated, "/a.qcow2", {.virtual_size = kDiskBytes}));
  const uint64_t before = status_bytes("VmRSS");
  uint64_t most = 0;
  const auto scatter = [&]() -> io::Task<void> {
    const std::unique_ptr<Image> image =
        co_await Image::open(simulated, "/a.qcow2", ImageOptions());
    for (uint64_t i = 0; i < kWrites; ++i) {
      const uint64_t at = i * 1597 % kWrites * (kDiskBytes / kWrites) + 8192;
      io::Buffer buffer = co_await real.buffers.acquire(4096);
      std::fill_n(buffer.data(), 4096, std::byte{1});
      co_await image->write(at, std::move(buffer));
      if (i % 64 == 0) most = std::max(most, status_bytes("VmRSS"));
    }
    co_await image->flush();
    most = std::max(most, status_bytes("VmRSS"));
    co_await image->abandon();
  };
  run(scatter());
  RecordProperty("mib", static_cast<int>((most - before) >> 20));
  EXPECT_LT(most - before, uint64_t{48} << 20) << "for 16 MiB written";
}

TEST_F(ImageMemory, AnIdleOneTakesUnder64Kib) {
  constexpr uint64_t kImages = 200;
  qemu_img("create -f qcow2 parent.qcow2 100G");
  std::vector<std::unique_ptr<Image>> images;
  const auto open_all = [&](uint64_t count) -> io::Task<void> {
    while (images.size() < count) {
      const std::string path = file("i" + std::to_string(images.size()) + ".qcow2");
      CreateOptions options{.virtual_size = uint64_t{100} << 30};
      options.parent.emplace(NewParent{.name = "parent.qcow2"});
      co_await create(runtime(), path, options);
      images.push_back(co_await Image::open(runtime(), path, ImageOptions()));
    }
  };
  run(open_all(10));
  const uint64_t before = status_bytes("VmRSS");
  run(open_all(kImages));
  const uint64_t each = (status_bytes("VmRSS") - before) / (kImages - 10);
  const auto close_all = [&]() -> io::Task<void> {
    for (const auto& image : images) co_await image->abandon();
  };
  run(close_all());
  RecordProperty("bytes_each", static_cast<int>(each));
  EXPECT_LT(each, 64u << 10);
}

}  // namespace
}  // namespace qcow
