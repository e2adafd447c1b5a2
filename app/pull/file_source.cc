// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "app/pull/listed_source.h"
#include "engine/restore/raw_file.h"
#include "io/failure.h"
#include "io/owned_fd.h"

namespace app {
namespace {

using engine::CopyRange;

constexpr size_t kHolesAtOnce = 4096;

/// A raw file or a block device.
class FileSource final : public ListedSource {
 public:
  FileSource(io::Ring& ring, io::Runtime runtime, PullDisk disk)
      : ListedSource(std::move(disk)), ring_(ring), runtime_(runtime) {}

  io::Task<void> open() {
    // Devices have links for names; a file that is opened has none.
    const std::string path = co_await runtime_.files.resolve(disk_.source);
    fd_ = io::OwnedFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};
    if (!fd_.valid() || ::fstat(fd_.get(), &status) != 0) throw io::failure("open", path, errno);
    const uint64_t bytes = bytes_now(path);
    if (!S_ISBLK(status.st_mode) && !S_ISREG(status.st_mode)) {
      throw std::runtime_error(path + " is neither a file nor a block device");
    }
    require_raw();
    auto file = co_await runtime_.files.open(path, io::OpenMode::disk_read_only);
    device_.emplace(std::move(file), bytes);
    read_list();
  }
  uint64_t size() const override { return device_->size(); }
  std::vector<io::BlockDevice*> devices() override { return {&*device_}; }
  io::Task<void> require_unchanged() override {
    require_same_size(disk_.source, size(), bytes_now(disk_.source));
    co_return;
  }
  io::Task<void> close() override { co_return; }

 private:
  uint64_t bytes_now(const std::string& path) const {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) throw io::failure("ask the size of", path, errno);
    uint64_t bytes = static_cast<uint64_t>(status.st_size);
    if (S_ISBLK(status.st_mode) && ::ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0) {
      throw io::failure("ask the size of", path, errno);
    }
    return bytes;
  }

  /// The bytes of an image file are not the bytes of its disk.
  void require_raw() {
    std::array<char, 4> start{};
    const ssize_t count = ::pread(fd_.get(), start.data(), start.size(), 0);
    if (count == 4 && std::string_view(start.data(), 4) == "QFI\xfb") {
      throw std::runtime_error(
          fmt::format("{} is a QCOW2 image, and a file is pulled as it is; the disk in it is "
                      "qcow2:{}",
                      disk_.source, disk_.source));
    }
  }

  /// From the file system's map of holes, where it keeps one.
  io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                            uint64_t& until) override {
    auto look = [fd = fd_.get(), offset, length, &until] {
      std::vector<CopyRange> ranges;
      const auto end = static_cast<off_t>(offset + length);
      auto at = static_cast<off_t>(offset);
      while (at < end && ranges.size() < kHolesAtOnce) {
        off_t data = ::lseek(fd, at, SEEK_DATA);
        if (data < 0) data = errno == ENXIO ? end : at;
        if (data > at) {
          data = std::min(data, end);
          ranges.push_back({static_cast<uint64_t>(at), static_cast<uint64_t>(data - at), true});
          at = data;
          continue;
        }
        off_t hole = ::lseek(fd, at, SEEK_HOLE);
        hole = hole <= at ? end : std::min(hole, end);
        ranges.push_back({static_cast<uint64_t>(at), static_cast<uint64_t>(hole - at), false});
        at = hole;
      }
      until = static_cast<uint64_t>(at);
      return ranges;
    };
    co_return co_await ring_.run_blocking(look);
  }
  io::Task<std::vector<CopyRange>> plan_changed(uint64_t offset, uint64_t length,
                                                uint64_t& until) override {
    return plan_all(offset, length, until);
  }
  bool knows_changes() const override { return false; }

  io::Ring& ring_;
  io::Runtime runtime_;
  io::OwnedFd fd_;
  std::optional<engine::RawFile> device_;
};

}  // namespace

io::Task<std::unique_ptr<PullSource>> open_file_source(io::Ring& ring, io::Runtime runtime,
                                                       PullDisk disk) {
  auto source = std::make_unique<FileSource>(ring, runtime, std::move(disk));
  co_await source->open();
  co_return source;
}

}  // namespace app
