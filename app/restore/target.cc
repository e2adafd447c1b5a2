// SPDX-License-Identifier: Apache-2.0
#include "app/restore/target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>

#include "app/nbd_connection.h"
#include "engine/restore/disk_file.h"
#include "engine/restore/raw_file.h"
#include "io/failure.h"
#include "io/outcome.h"
#include "io/owned_fd.h"

namespace app {
namespace {

using engine::DiskFormat;

/// Size in bytes of the block device at `path`; nothing when it is none.
std::optional<uint64_t> block_device_size(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) return std::nullopt;
  const io::OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  uint64_t bytes = 0;
  if (!fd.valid() || ::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) {
    throw io::failure("ask the size of", path, errno);
  }
  return bytes;
}

TargetRefused too_small(const TargetRequest& request, uint64_t size) {
  return TargetRefused(fmt::format("{} has {} bytes and the disk {} bytes: too small",
                                   request.target, size, request.size));
}

/// A raw file or a QCOW2 file.
class FileTarget final : public RestoreTarget {
 public:
  FileTarget(io::Runtime runtime, TargetRequest request)
      : runtime_(runtime),
        request_(std::move(request)),
        partial_(request_.target + ".partial"),
        format_(request_.target.ends_with(".qcow2") ? DiskFormat::qcow2 : DiskFormat::raw),
        progress_(runtime, partial_ + ".state", request_.source_name, request_.size) {}

  io::Task<void> open() {
    const bool is_there = (co_await runtime_.files.status(request_.target, true)).has_value();
    if (request_.in_place) {
      if (!is_there) {
        throw TargetRefused(
            fmt::format("{}: --since needs a target that holds the older point, and there is none",
                        request_.target));
      }
      co_await open_file(request_.target);
      co_return;
    }
    if (is_there && !request_.force) {
      throw TargetRefused(fmt::format("{} is there already; --force replaces it", request_.target));
    }
    co_await resume_or_begin();
    co_await open_file(partial_);
  }

  std::vector<io::BlockDevice*> devices() override { return {&file_->device()}; }
  bool is_zero() const override { return !request_.in_place && resumed_at_ == 0; }
  uint64_t resumed_at() const override { return resumed_at_; }

  io::Task<void> keep(uint64_t done) override {
    co_await file_->device().flush();
    if (!request_.in_place) co_await progress_.keep(done);
  }

  io::Task<void> finish() override {
    co_await file_->close();
    file_.reset();
    if (request_.in_place) co_return;
    co_await runtime_.files.rename(partial_, request_.target, request_.force);
    co_await runtime_.files.sync_directory(io::parent_path(request_.target));
    co_await progress_.forget();
  }

  /// What has come so far stays, for --resume.
  io::Task<void> close() override {
    if (!file_) co_return;
    io::Outcome<> ended = co_await io::attempt([this] { return file_->close(); });
    if (ended.failed()) co_await file_->abandon();
    file_.reset();
  }

 private:
  io::Task<void> resume_or_begin() {
    const bool is_interrupted = (co_await runtime_.files.status(partial_, true)).has_value();
    if (is_interrupted && !request_.resume && !request_.force) {
      throw TargetRefused(fmt::format(
          "{} is of an interrupted restore; --resume continues it, --force begins anew", partial_));
    }
    if (is_interrupted && request_.resume) resumed_at_ = co_await progress_.read();
    if (resumed_at_ != 0) co_return;
    co_await progress_.forget();
    if (is_interrupted) co_await runtime_.files.remove(partial_);
    co_await engine::DiskFile::create(runtime_, partial_, format_, request_.size);
  }

  io::Task<void> open_file(std::string path) {
    file_ = co_await engine::DiskFile::open(runtime_, path, format_);
    const uint64_t size = file_->device().size();
    if (size < request_.size) throw too_small(request_, size);
  }

  const io::Runtime runtime_;
  const TargetRequest request_;
  const std::string partial_;
  const DiskFormat format_;
  RestoreProgress progress_;
  uint64_t resumed_at_ = 0;
  std::unique_ptr<engine::DiskFile> file_;
};

/// What is overwritten where it is, a block device or an export: its record lies elsewhere.
class PlaceTarget : public RestoreTarget {
 public:
  uint64_t resumed_at() const override { return resumed_at_; }
  io::Task<void> keep(uint64_t done) override {
    co_await devices().front()->flush();
    if (!request_.in_place) co_await progress_.keep(done);
  }
  io::Task<void> finish() override {
    co_await devices().front()->flush();
    co_await progress_.forget();
  }

 protected:
  PlaceTarget(io::Runtime runtime, TargetRequest request)
      : request_(std::move(request)),
        progress_(runtime, RestoreProgress::path_for(request_.target), request_.source_name,
                  request_.size) {}

  /// `what`: "a block device". Throws TargetRefused.
  io::Task<void> require_usable(uint64_t size, std::string what) {
    if (size < request_.size) throw too_small(request_, size);
    if (request_.resume) resumed_at_ = co_await progress_.read();
    if (!request_.force && !request_.in_place && resumed_at_ == 0) {
      throw TargetRefused(fmt::format("{} is {}; --force overwrites it", request_.target, what));
    }
    // What an earlier restore has left there is overwritten from here on.
    if (resumed_at_ == 0) co_await progress_.forget();
  }

  const TargetRequest request_;

 private:
  RestoreProgress progress_;
  uint64_t resumed_at_ = 0;
};

class DeviceTarget final : public PlaceTarget {
 public:
  DeviceTarget(io::Runtime runtime, TargetRequest request)
      : PlaceTarget(runtime, std::move(request)), runtime_(runtime) {}

  io::Task<void> open(uint64_t size) {
    co_await require_usable(size, "a block device");
    const std::string path = co_await runtime_.files.resolve(request_.target);
    auto file = co_await runtime_.files.open(path, io::OpenMode::block_device);
    device_ = std::make_unique<engine::RawFile>(std::move(file), request_.size);
  }
  std::vector<io::BlockDevice*> devices() override { return {device_.get()}; }
  io::Task<void> close() override { co_return; }

 private:
  const io::Runtime runtime_;
  std::unique_ptr<engine::RawFile> device_;
};

/// An export of an NBD server.
class NbdTarget final : public PlaceTarget {
 public:
  NbdTarget(io::Runtime runtime, TargetRequest request)
      : PlaceTarget(runtime, std::move(request)) {}

  io::Task<void> open(io::Ring& ring, io::Runtime runtime) {
    const nbd::Uri uri = nbd::parse_uri(request_.target);
    clients_ = co_await connect_all(ring, runtime, uri, request_.connections, request_.tls, {});
    const nbd::Client& client = *clients_.front();
    if (client.info().has(nbd::kReadOnly)) {
      throw TargetRefused(fmt::format("{} is read-only", request_.target));
    }
    co_await require_usable(client.size(), "an NBD export");
  }
  std::vector<io::BlockDevice*> devices() override {
    std::vector<io::BlockDevice*> devices;
    for (const auto& client : clients_) devices.push_back(client.get());
    return devices;
  }
  io::Task<void> close() override {
    for (const auto& client : clients_) co_await client->close();
    clients_.clear();
  }

 private:
  std::vector<std::unique_ptr<nbd::Client>> clients_;
};

/// Opens a target; one that fails is closed.
template <typename Target, typename Open>
io::Task<std::unique_ptr<RestoreTarget>> opened(std::unique_ptr<Target> target, Open open) {
  io::Outcome<> done = co_await io::attempt([&] { return open(*target); });
  if (done.failed()) co_await target->close();
  done.take();
  co_return std::move(target);
}

}  // namespace

io::Task<std::unique_ptr<RestoreTarget>> RestoreTarget::open(io::Ring& ring, io::Runtime runtime,
                                                             TargetRequest request) {
  if (nbd::is_uri(request.target)) {
    auto target = std::make_unique<NbdTarget>(runtime, std::move(request));
    co_return co_await opened(std::move(target),
                              [&](NbdTarget& here) { return here.open(ring, runtime); });
  }
  if (const auto size = block_device_size(request.target)) {
    auto target = std::make_unique<DeviceTarget>(runtime, std::move(request));
    co_return co_await opened(std::move(target),
                              [&](DeviceTarget& here) { return here.open(*size); });
  }
  auto target = std::make_unique<FileTarget>(runtime, std::move(request));
  co_return co_await opened(std::move(target), [](FileTarget& here) { return here.open(); });
}

}  // namespace app
