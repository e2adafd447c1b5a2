// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/served_disk.h"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include "engine/values/layout.h"
#include "io/log.h"
#include "io/outcome.h"

namespace engine {
namespace {

constexpr io::Duration kGrace = std::chrono::seconds(1);

/// One for each older point of the disk.
nbd::MetaContexts contexts_of(const qcow::Chain& chain, size_t first, const DiskToServe& disk) {
  nbd::MetaContexts contexts = change_contexts_of(chain, first, disk.ancestors);
  const nbd::MetaContexts apart = nbd::changed_entirely(disk.apart);
  contexts.insert(contexts.end(), apart.begin(), apart.end());
  return contexts;
}

}  // namespace

/// An overlay that takes nothing new once its file is as long as it may be.
class ServedDisk::Capped final : public io::BlockDevice {
 public:
  Capped(qcow::Image& image, std::optional<uint64_t> limit) : image_(image), limit_(limit) {}

  uint64_t size() const override { return image_.size(); }
  uint32_t preferred_block_size() const override { return image_.preferred_block_size(); }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    return image_.read(offset, into);
  }
  io::Task<void> write(uint64_t offset, io::Buffer from) override {
    require_room();
    return image_.write(offset, std::move(from));
  }
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override {
    require_room();
    return image_.write_zeroes(offset, length, mode);
  }
  io::Task<void> discard(uint64_t offset, uint64_t length) override {
    require_room();
    return image_.discard(offset, length);
  }
  io::Task<void> flush() override { return image_.flush(); }
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override {
    return image_.extents(offset, length, count_max);
  }

 private:
  void require_room() const {
    if (!limit_ || image_.counters().file_bytes < *limit_) return;
    throw std::system_error(
        ENOSPC, std::generic_category(),
        fmt::format("{} has reached its limit of {} bytes", image_.name(), *limit_));
  }

  qcow::Image& image_;
  const std::optional<uint64_t> limit_;
};

ServedDisk::~ServedDisk() = default;

io::Task<std::unique_ptr<ServedDisk>> ServedDisk::open(io::Runtime data, DiskToServe disk) {
  std::unique_ptr<ServedDisk> served(new ServedDisk());
  if (!disk.writable) {
    qcow::ChainOptions options;
    options.repository_root = disk.repository_directory;
    served->chain_ = co_await qcow::Chain::open(data, disk.path, options);
    if (const auto doubt = served->chain_->suspect()) {
      io::log(io::LogLevel::warning, "restore: {}: {}", disk.path, *doubt);
    }
    disk.spec.more_contexts = contexts_of(*served->chain_, 1, disk);
    io::BlockDevice* device = served->chain_.get();
    if (disk.verified) {
      served->verified_ =
          std::make_unique<qcow::VerifiedChain>(data, *served->chain_, sums_path, disk.spec.name);
      device = served->verified_.get();
    }
    served->export_ = nbd::Export::make(std::move(disk.spec), *device, data);
    co_return served;
  }
  qcow::ImageOptions options;
  options.repository_root = disk.repository_directory;
  options.commit_interval = disk.commit_interval;
  options.commit_bytes = disk.commit_bytes;
  options.allocate_ahead = false;  // what nobody writes takes no space
  options.on_failure = [of = served.get()](std::exception_ptr cause) {
    if (of->export_) of->export_->fail(std::move(cause));
  };
  served->image_ = co_await qcow::Image::open(data, disk.path, options);
  const auto make_export = [&]() -> io::Task<void> {
    served->capped_ = std::make_unique<Capped>(*served->image_, disk.size_limit_bytes);
    disk.spec.more_contexts = contexts_of(*served->image_->parents(), 0, disk);
    served->export_ = nbd::Export::make(std::move(disk.spec), *served->capped_, data);
    co_return;
  };
  io::Outcome<> made = co_await io::attempt(make_export);
  if (made.failed()) co_await served->image_->abandon();
  made.take();
  co_return served;
}

io::Task<void> ServedDisk::close(std::optional<std::string> reason) {
  if (reason) export_->close(std::move(*reason), kGrace);
  co_await export_->join();
  if (image_) {
    io::Outcome<> closed = co_await io::attempt([this] { return image_->close(); });
    try {
      closed.take();
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "restore: {} has lost what was not flushed: {}", image_->name(),
              failure.what());
    }
  }
  capped_.reset();
  image_.reset();
  verified_.reset();
  chain_.reset();
}

}  // namespace engine
