// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/disk_file.h"

#include "engine/restore/raw_file.h"
#include "io/file.h"
#include "qcow/format/uuid.h"
#include "qcow/image/create.h"

namespace engine {

io::Task<void> DiskFile::create(io::Runtime runtime, std::string path, DiskFormat format,
                                uint64_t size) {
  if (format == DiskFormat::qcow2) {
    qcow::CreateOptions options;
    options.virtual_size = size;
    options.image_uuid = qcow::make_uuid(runtime);
    co_await qcow::create(runtime, std::move(path), options);
    co_return;
  }
  const auto file = co_await runtime.files.open(std::move(path), io::OpenMode::create_new);
  co_await file->truncate(size);
}

io::Task<std::unique_ptr<DiskFile>> DiskFile::open(io::Runtime runtime, std::string path,
                                                   DiskFormat format) {
  std::unique_ptr<DiskFile> opened(new DiskFile());
  if (format == DiskFormat::qcow2) {
    const qcow::ImageOptions options;
    opened->image_ = co_await qcow::Image::open(runtime, std::move(path), options);
    opened->device_ = opened->image_.get();
    co_return opened;
  }
  auto file = co_await runtime.files.open(std::move(path), io::OpenMode::read_write);
  const uint64_t size = co_await file->size();
  opened->raw_ = std::make_unique<RawFile>(std::move(file), size);
  opened->device_ = opened->raw_.get();
  co_return opened;
}

io::Task<void> DiskFile::close() {
  if (raw_) co_await raw_->flush();
  if (image_) co_await image_->close();
  raw_.reset();
  image_.reset();
}

io::Task<void> DiskFile::abandon() {
  raw_.reset();
  if (image_) co_await image_->abandon();
  image_.reset();
}

}  // namespace engine
