#include "app/pull/source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <optional>

#include "app/nbd_connection.h"
#include "app/pull/areas.h"
#include "engine/restore/raw_file.h"
#include "io/failure.h"
#include "io/outcome.h"
#include "io/owned_fd.h"

namespace app {
namespace {

using engine::CopyRange;

/// A dirty range shorter than this is read sooner than asked about, and zeroes are found on the
/// way.
constexpr uint64_t kAskedAboutFrom = 256 << 10;
constexpr size_t kExtentsAtOnce = 4096;

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) throw io::failure("read", path, errno != 0 ? errno : EIO);
  return text;
}

/// The ranges made longer, to whole blocks of the source; neighbours that meet become one.
std::vector<CopyRange> in_blocks(const std::vector<CopyRange>& ranges, uint64_t block,
                                 uint64_t from, uint64_t until) {
  if (block <= 1) return ranges;
  std::vector<CopyRange> whole;
  for (CopyRange range : ranges) {
    // A range of zeroes keeps its blocks only where it covers them: the rest of one may be data.
    const bool aligned = range.offset % block == 0 && range.length % block == 0;
    const uint64_t start = std::max(from, range.offset / block * block);
    const uint64_t end = std::min(until, (range.offset + range.length + block - 1) / block * block);
    range = {start, end - start, range.zero && aligned};
    if (!whole.empty() && whole.back().offset + whole.back().length > range.offset) {
      CopyRange& last = whole.back();
      last.length = std::max(last.offset + last.length, end) - last.offset;
      last.zero = last.zero && range.zero;
    } else {
      whole.push_back(range);
    }
  }
  return whole;
}

std::vector<CopyRange> ranges_of(const std::vector<io::Extent>& extents, uint64_t from,
                                 uint64_t& until) {
  std::vector<CopyRange> ranges;
  until = from;
  for (const io::Extent& extent : extents) {
    if (!ranges.empty() && ranges.back().zero == extent.zero) {
      ranges.back().length += extent.length;
    } else {
      ranges.push_back({until, extent.length, extent.zero});
    }
    until += extent.length;
  }
  return ranges;
}

/// What both kinds of source do: a list of changes from a file.
class ListedSource : public PullSource {
 public:
  explicit ListedSource(PullDisk disk) : disk_(std::move(disk)) {}

  io::Task<std::vector<CopyRange>> plan(uint64_t offset, uint64_t length, uint64_t& until,
                                        bool everything) final {
    if (areas_ && !everything) {
      until = offset + length;
      co_return in_blocks(areas_->within(offset, length), block_bytes(), offset, until);
    }
    if (disk_.bitmap.empty() || everything) co_return co_await plan_all(offset, length, until);
    co_return co_await plan_dirty(offset, length, until);
  }

 protected:
  virtual io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                                    uint64_t& until) = 0;
  virtual io::Task<std::vector<CopyRange>> plan_dirty(uint64_t offset, uint64_t length,
                                                      uint64_t& until) = 0;
  void read_list() {
    if (!disk_.changed.empty()) {
      areas_ = Areas::parse(read_text(disk_.changed), size(), disk_.changed);
    }
  }

  const PullDisk disk_;

 private:
  std::optional<Areas> areas_;
};

/// A raw file or a block device.
class FileSource final : public ListedSource {
 public:
  FileSource(io::Ring& ring, io::Runtime runtime, PullDisk disk, bool writable)
      : ListedSource(std::move(disk)), ring_(ring), runtime_(runtime), writable_(writable) {}

  io::Task<void> open() {
    // Devices have links for names; a file that is opened has none.
    const std::string path = co_await runtime_.files.resolve(disk_.source);
    fd_ = io::OwnedFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!fd_.valid() || ::fstat(fd_.get(), &status) != 0) throw io::failure("open", path, errno);
    uint64_t bytes = static_cast<uint64_t>(status.st_size);
    if (S_ISBLK(status.st_mode) && ::ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0) {
      throw io::failure("ask the size of", path, errno);
    }
    if (!S_ISBLK(status.st_mode) && !S_ISREG(status.st_mode)) {
      throw std::runtime_error(path + " is neither a file nor a block device");
    }
    require_raw();
    const io::OpenMode writing =
        S_ISBLK(status.st_mode) ? io::OpenMode::block_device : io::OpenMode::read_write;
    auto file =
        co_await runtime_.files.open(path, writable_ ? writing : io::OpenMode::disk_read_only);
    device_.emplace(std::move(file), bytes);
    read_list();
  }
  uint64_t size() const override { return device_->size(); }
  std::vector<io::BlockDevice*> devices() override { return {&*device_}; }
  io::Task<void> trim(uint64_t offset, uint64_t length) override {
    return device_->discard(offset, length);
  }
  bool can_trim() const override { return writable_; }
  io::Task<void> close() override { co_return; }

 private:
  /// The bytes of an image file are not the bytes of its disk.
  void require_raw() {
    std::array<char, 4> start{};
    const ssize_t count = ::pread(fd_.get(), start.data(), start.size(), 0);
    if (count == 4 && std::string_view(start.data(), 4) == "QFI\xfb") {
      throw std::runtime_error(
          fmt::format("{} is a QCOW2 image, and a file is pulled as it lies; serve its disk with "
                      "'varve nbd -r' "
                      "or 'qemu-nbd -r' and pull that",
                      disk_.source));
    }
  }

  /// From the file system's map of holes, where it keeps one.
  io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                            uint64_t& until) override {
    auto look = [fd = fd_.get(), offset, length, &until] {
      std::vector<CopyRange> ranges;
      const auto end = static_cast<off_t>(offset + length);
      auto at = static_cast<off_t>(offset);
      while (at < end && ranges.size() < kExtentsAtOnce) {
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
  io::Task<std::vector<CopyRange>> plan_dirty(uint64_t offset, uint64_t length,
                                              uint64_t& until) override {
    return plan_all(offset, length, until);  // a file has no dirty bitmap: refused before
  }

  io::Ring& ring_;
  io::Runtime runtime_;
  const bool writable_;
  io::OwnedFd fd_;
  std::optional<engine::RawFile> device_;
};

/// An export of an NBD server. What has changed, and what is zero, is asked on connections of their
/// own: QEMU refuses BLOCK_STATUS outside a backup's bitmap for all contexts of a connection.
class NbdSource final : public ListedSource {
 public:
  explicit NbdSource(PullDisk disk) : ListedSource(std::move(disk)) {}

  io::Task<void> open(io::Ring& ring, io::Runtime runtime, const PullOptions& options) {
    const nbd::Uri uri = nbd::parse_uri(disk_.source);
    const auto connected = [&](uint32_t count, std::vector<std::string> contexts) {
      return connect_all(ring, runtime, uri, count, options.tls, std::move(contexts));
    };
    clients_ = co_await connected(options.connections, {});
    std::vector<std::string> contexts(1, "base:allocation");
    auto one = co_await connected(1, contexts);
    allocation_ = std::move(one.front());
    if (!disk_.bitmap.empty() && !options.full) {
      const std::string context = "qemu:dirty-bitmap:" + disk_.bitmap;
      contexts.front() = context;
      one = co_await connected(1, contexts);
      dirty_ = std::move(one.front());
      if (dirty_->contexts().empty()) {
        throw std::runtime_error(
            fmt::format("{} has no context {}: is the bitmap exported?", disk_.source, context));
      }
    }
    read_list();
  }
  uint64_t size() const override { return clients_.front()->size(); }
  std::vector<io::BlockDevice*> devices() override {
    std::vector<io::BlockDevice*> devices;
    for (const auto& client : clients_) devices.push_back(client.get());
    return devices;
  }
  uint64_t block_bytes() const override { return clients_.front()->info().block_bytes_min; }
  io::Task<void> trim(uint64_t offset, uint64_t length) override {
    return clients_.front()->discard(offset, length);
  }
  bool can_trim() const override {
    const nbd::ExportInfo& info = clients_.front()->info();
    return info.has(nbd::kSendTrim) && !info.has(nbd::kReadOnly);
  }
  void abort() noexcept override {
    for (const auto& client : clients_) client->abort();
    if (allocation_) allocation_->abort();
    if (dirty_) dirty_->abort();
  }
  io::Task<void> close() override {
    for (const auto& client : clients_) co_await client->close();
    if (allocation_) co_await allocation_->close();
    if (dirty_) co_await dirty_->close();
  }

 private:
  io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                            uint64_t& until) override {
    if (!allocation_refused_) {
      try {
        co_return ranges_of(co_await allocation_->extents(offset, length, kExtentsAtOnce), offset,
                            until);
      } catch (const std::system_error&) {
        allocation_refused_ = true;  // a server need not know; what is read tells
      }
    }
    until = offset + length;
    co_return std::vector<CopyRange>(1, CopyRange{offset, length, false});
  }

  io::Task<std::vector<CopyRange>> plan_dirty(uint64_t offset, uint64_t length,
                                              uint64_t& until) override {
    const std::vector<nbd::StatusPayload> answers = co_await dirty_->block_status(offset, length);
    until = offset;
    std::vector<CopyRange> ranges;
    for (const nbd::StatusPayload& answer : answers) {
      if (answer.context_id != dirty_->contexts().front().id) continue;
      for (const nbd::StatusRun& run : answer.runs) {
        const uint64_t part = std::min(run.length, offset + length - until);
        if ((run.flags & 1) != 0 && part > 0) co_await add_dirty(until, part, ranges);
        until += part;
      }
    }
    if (until <= offset) {
      throw std::runtime_error(
          fmt::format("{} says nothing about bitmap {}", disk_.source, disk_.bitmap));
    }
    co_return in_blocks(ranges, block_bytes(), offset, until);
  }

  /// A dirty range, with what of it is known to be zero.
  io::Task<void> add_dirty(uint64_t offset, uint64_t length, std::vector<CopyRange>& ranges) {
    if (length < kAskedAboutFrom) {
      ranges.push_back({offset, length, false});
      co_return;
    }
    for (const uint64_t end = offset + length; offset < end;) {
      uint64_t until = offset;
      const auto parts = co_await plan_all(offset, end - offset, until);
      ranges.insert(ranges.end(), parts.begin(), parts.end());
      offset = until;
    }
  }

  std::vector<std::unique_ptr<nbd::Client>> clients_;
  std::unique_ptr<nbd::Client> allocation_, dirty_;
  bool allocation_refused_ = false;
};

template <class Source, class Open>
io::Task<std::unique_ptr<PullSource>> opened(std::unique_ptr<Source> source, Open open) {
  io::Outcome<> done = co_await io::attempt([&] { return open(*source); });
  if (done.failed()) co_await source->close();
  done.take();
  co_return source;
}

}  // namespace

io::Task<std::unique_ptr<PullSource>> PullSource::open(io::Ring& ring, io::Runtime runtime,
                                                       PullDisk disk, const PullOptions& options) {
  if (nbd::is_uri(disk.source)) {
    auto source = std::make_unique<NbdSource>(std::move(disk));
    co_return co_await opened(std::move(source),
                              [&](NbdSource& here) { return here.open(ring, runtime, options); });
  }
  auto source = std::make_unique<FileSource>(ring, runtime, std::move(disk), options.trim_source);
  co_return co_await opened(std::move(source), [](FileSource& here) { return here.open(); });
}

}  // namespace app
