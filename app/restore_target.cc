#include "app/restore_target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/nbd_connection.h"
#include "engine/restore/raw_file.h"
#include "io/failure.h"
#include "io/log.h"
#include "io/owned_fd.h"
#include "qcow/format/uuid.h"
#include "qcow/image/create.h"
#include "qcow/image/image.h"

namespace app {
namespace {

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
  return TargetRefused(fmt::format("{} has {} bytes and the disk {}: too small", request.target,
                                   size, request.size));
}

/// A raw file or a QCOW2 file.
class FileTarget final : public RestoreTarget {
 public:
  FileTarget(io::Runtime runtime, TargetRequest request)
      : runtime_(runtime),
        request_(std::move(request)),
        partial_(request_.target + ".partial"),
        state_(partial_ + ".state"),
        is_qcow2_(request_.target.ends_with(".qcow2")) {}

  io::Task<void> open() {
    const auto there = co_await runtime_.files.status(request_.target, true);
    if (request_.in_place) {
      if (!there)
        throw TargetRefused(
            fmt::format("{}: --since needs a target that holds the older "
                        "point, and there is none",
                        request_.target));
      co_await open_image(request_.target);
      co_return;
    }
    if (there && !request_.force) {
      throw TargetRefused(fmt::format("{} is there already; --force replaces it", request_.target));
    }
    const bool is_interrupted = (co_await runtime_.files.status(partial_, true)).has_value();
    if (is_interrupted && !request_.resume && !request_.force) {
      throw TargetRefused(fmt::format(
          "{} is of an interrupted restore; --resume continues it, --force begins anew", partial_));
    }
    if (request_.resume) resumed_at_ = co_await read_state();
    if (resumed_at_ == 0) {
      co_await remove_if_there(state_);
      co_await remove_if_there(partial_);
      co_await create_image();
    }
    co_await open_image(partial_);
  }

  std::vector<io::BlockDevice*> devices() override { return {device_}; }
  bool is_zero() const override { return !request_.in_place && resumed_at_ == 0; }
  uint64_t resumed_at() const override { return resumed_at_; }

  io::Task<void> keep(uint64_t done) override {
    co_await device_->flush();
    if (request_.in_place) co_return;
    const nlohmann::json state = {
        {"source", request_.source_name}, {"size_bytes", request_.size}, {"done_bytes", done}};
    co_await io::replace_text(runtime_, state_, state.dump() + "\n");
  }

  io::Task<void> finish() override {
    io::Task<void> ending = end();
    co_await std::move(ending);
    if (request_.in_place) co_return;
    co_await runtime_.files.rename(partial_, request_.target, request_.force);
    co_await runtime_.files.sync_directory(io::parent_path(request_.target));
    co_await remove_if_there(state_);
  }

  io::Task<void> close() override {
    io::Outcome<> ended = co_await io::attempt([this] { return end(); });
    if (ended.failed() && image_) co_await image_->abandon();
  }

 private:
  io::Task<void> end() {
    device_ = nullptr;
    raw_.reset();
    if (!image_) co_return;
    co_await image_->close();
    image_.reset();
  }

  io::Task<void> create_image() {
    if (is_qcow2_) {
      qcow::CreateOptions options;
      options.virtual_size = request_.size;
      options.image_uuid = qcow::make_uuid(runtime_);
      co_await qcow::create(runtime_, partial_, options);
      co_return;
    }
    const auto file = co_await runtime_.files.open(partial_, io::OpenMode::create_new);
    co_await file->truncate(request_.size);
  }

  io::Task<void> open_image(std::string path) {
    if (is_qcow2_) {
      image_ = co_await qcow::Image::open(runtime_, path, qcow::ImageOptions());
      if (image_->size() != request_.size) throw too_small(request_, image_->size());
      device_ = image_.get();
      co_return;
    }
    auto file = co_await runtime_.files.open(path, io::OpenMode::read_write);
    const uint64_t size = co_await file->size();
    if (size < request_.size) throw too_small(request_, size);
    raw_ = std::make_unique<engine::RawFile>(std::move(file), request_.size);
    device_ = raw_.get();
  }

  /// How far an earlier restore of the same point came; 0 when there was none.
  io::Task<uint64_t> read_state() {
    const auto there = co_await runtime_.files.status(state_, true);
    const auto partial = co_await runtime_.files.status(partial_, true);
    if (!there || !partial) co_return 0;
    const std::string text = co_await io::read_text(runtime_.files, state_);
    const auto state = nlohmann::json::parse(text, nullptr, false);
    const bool is_whole =
        state.is_object() && state.value("size_bytes", uint64_t{0}) == request_.size;
    if (!is_whole || state.value("source", std::string()) != request_.source_name) {
      throw TargetRefused(
          fmt::format("{} is of another restore ({}); remove it, or use --force without --resume "
                      "to begin anew",
                      partial_, is_whole ? state.value("source", std::string()) : "unreadable"));
    }
    co_return std::min(state.value("done_bytes", uint64_t{0}), request_.size);
  }

  io::Task<void> remove_if_there(std::string path) {
    const auto there = co_await runtime_.files.status(path, false);
    if (there) co_await runtime_.files.remove(path);
  }

  const io::Runtime runtime_;
  const TargetRequest request_;
  const std::string partial_, state_;
  const bool is_qcow2_;
  uint64_t resumed_at_ = 0;
  std::unique_ptr<engine::RawFile> raw_;
  std::unique_ptr<qcow::Image> image_;
  io::BlockDevice* device_ = nullptr;
};

/// A block device, overwritten where it is.
class DeviceTarget final : public RestoreTarget {
 public:
  static io::Task<std::unique_ptr<RestoreTarget>> open(io::Runtime runtime, TargetRequest request,
                                                       uint64_t size) {
    if (size < request.size) throw too_small(request, size);
    if (!request.force && !request.in_place) {
      throw TargetRefused(
          fmt::format("{} is a block device; --force overwrites it", request.target));
    }
    const std::string path = co_await runtime.files.resolve(request.target);
    auto file = co_await runtime.files.open(path, io::OpenMode::block_device);
    co_return std::unique_ptr<RestoreTarget>(new DeviceTarget(std::move(file), request.size));
  }

  std::vector<io::BlockDevice*> devices() override { return {&device_}; }
  io::Task<void> keep(uint64_t) override { return device_.flush(); }
  io::Task<void> finish() override { return device_.flush(); }
  io::Task<void> close() override { co_return; }

 private:
  DeviceTarget(std::unique_ptr<io::File> file, uint64_t size) : device_(std::move(file), size) {}
  engine::RawFile device_;
};

/// An export of an NBD server.
class NbdTarget final : public RestoreTarget {
 public:
  static io::Task<std::unique_ptr<RestoreTarget>> open(io::Ring& ring, io::Runtime runtime,
                                                       TargetRequest request) {
    const nbd::Uri uri = nbd::parse_uri(request.target);
    std::unique_ptr<NbdTarget> target(new NbdTarget());
    target->clients_ = co_await connect_all(ring, runtime, uri, request.connections, {});
    std::string refusal;
    const nbd::Client& client = *target->clients_.front();
    if (client.info().has(nbd::kReadOnly)) {
      refusal = fmt::format("{} is read-only", request.target);
    } else if (client.size() < request.size) {
      refusal = too_small(request, client.size()).what();
    } else if (!request.force && !request.in_place) {
      refusal = fmt::format("{} is an NBD export; --force overwrites it", request.target);
    }
    if (!refusal.empty()) {
      co_await target->close();
      throw TargetRefused(refusal);
    }
    co_return std::move(target);
  }

  std::vector<io::BlockDevice*> devices() override {
    std::vector<io::BlockDevice*> devices;
    for (const auto& client : clients_) devices.push_back(client.get());
    return devices;
  }
  io::Task<void> keep(uint64_t) override { return clients_.front()->flush(); }
  io::Task<void> finish() override { return clients_.front()->flush(); }
  io::Task<void> close() override {
    for (const auto& client : clients_) co_await client->close();
    clients_.clear();
  }

 private:
  NbdTarget() = default;
  std::vector<std::unique_ptr<nbd::Client>> clients_;
};

}  // namespace

io::Task<std::unique_ptr<RestoreTarget>> RestoreTarget::open(io::Ring& ring, io::Runtime runtime,
                                                             TargetRequest request) {
  if (nbd::is_uri(request.target)) {
    co_return co_await NbdTarget::open(ring, runtime, std::move(request));
  }
  if (const auto size = block_device_size(request.target)) {
    co_return co_await DeviceTarget::open(runtime, std::move(request), *size);
  }
  auto file = std::make_unique<FileTarget>(runtime, std::move(request));
  io::Outcome<> opened = co_await io::attempt([&] { return file->open(); });
  if (opened.failed()) co_await file->close();
  opened.take();
  co_return std::move(file);
}

}  // namespace app
