// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/image_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "io/task_scope.h"

namespace qcow_test {

void ImageModel::SetUp() {
  if (const char* const seed = std::getenv("VARVE_TEST_SEED")) random_.seed(std::stoull(seed));
}

void ImageModel::TearDown() {
  if (image_) run(image_->abandon());
  image_.reset();
}

void ImageModel::create(const std::string& name, Shape shape) {
  qcow::CreateOptions options;
  options.virtual_size = shape.size;
  options.cluster_bits = shape.cluster_bits;
  options.refcount_order = shape.refcount_order;
  options.image_uuid[0] = std::byte{1};
  if (!shape.parent.empty()) {
    qcow::NewParent parent;
    parent.name = shape.parent;
    if (const auto& record = header(shape.parent).record) {
      parent.uuid = record->image_uuid;
      parent.manifest_hash = record->manifest_hash;
    }
    options.parent = parent;
  }
  run(qcow::create(runtime(), file(name), options));
  if (shape.parent.empty()) model_.clear();
  model_.resize(shape.size);
}

void ImageModel::open(const std::string& name, qcow::ImageOptions options) {
  name_ = name;
  image_ = run(qcow::Image::open(faulty_runtime(), file(name), std::move(options)));
  cluster_bytes_ = image_->header().geometry().cluster_bytes();
}

void ImageModel::close() {
  run(image_->close());
  image_.reset();
}

io::Task<void> ImageModel::write_task(uint64_t offset, Bytes bytes) {
  std::copy(bytes.begin(), bytes.end(), model_.begin() + static_cast<ptrdiff_t>(offset));
  const uint64_t piece_bytes = std::max<uint64_t>(1 << 20, cluster_bytes_);
  for (uint64_t at = 0; at < bytes.size();) {
    // Cut at cluster borders, as a session does.
    const uint64_t end = std::min<uint64_t>(
        bytes.size(), (offset + at + piece_bytes) / cluster_bytes_ * cluster_bytes_ - offset);
    const uint64_t to = end > at ? end : bytes.size();
    io::Buffer piece = co_await runtime().buffers.acquire(to - at, (offset + at) % 4096);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), to - at, piece.data());
    co_await image_->write(offset + at, std::move(piece));
    at = to;
  }
}

void ImageModel::write(uint64_t offset, Bytes bytes) { run(write_task(offset, std::move(bytes))); }

Bytes ImageModel::random_content(uint64_t length) {
  Bytes bytes = random_bytes(random_, length);
  // Zero clusters inside data, and data that is zero but for its last byte.
  if (random_below(4) == 0 && length > 0) {
    const uint64_t from = random_below(length);
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(from), random_below(length - from) + 1,
                std::byte{0});
  }
  return bytes;
}

void ImageModel::write_random(uint64_t offset, uint64_t length) {
  write(offset, random_content(length));
}

void ImageModel::zero(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  run(image_->write_zeroes(offset, length, mode));
  std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
}

void ImageModel::discard(uint64_t offset, uint64_t length) {
  run(image_->discard(offset, length));
  std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
}

void ImageModel::flush() { run(image_->flush()); }

Bytes ImageModel::read(uint64_t offset, uint64_t length) {
  Bytes bytes(length, std::byte{0xee});
  run(image_->read(offset, bytes));
  return bytes;
}

void ImageModel::expect_reads_as_model() {
  const Bytes got = read(0, model_.size());
  if (got == model_) return;
  const auto [at, other] = std::mismatch(got.begin(), got.end(), model_.begin());
  ADD_FAILURE() << name_ << " differs from the model at byte " << at - got.begin();
}

std::string ImageModel::check(const std::string& name) { return qemu_img("check " + name); }

void ImageModel::expect_valid(const std::string& name) {
  const std::string text = check(name);
  EXPECT_NE(text.find("No errors were found"), std::string::npos) << text;
  const Bytes seen = qemu_content(name);
  const qcow::Geometry geometry = header(name).geometry();
  EXPECT_LE(file_bytes(file(name)),
            (geometry.clusters_without_refcounts() + geometry.refcount_table_clusters() + 2 +
             2 * geometry.clusters_without_refcounts() / geometry.refcounts_per_block()) *
                geometry.cluster_bytes())
      << "LT10";
  // qemu cuts a disk to whole sectors.
  ASSERT_EQ(seen.size(), model_.size() / 512 * 512);
  EXPECT_TRUE(std::equal(seen.begin(), seen.end(), model_.begin()))
      << name << " as qemu sees it differs from the model at byte "
      << std::mismatch(seen.begin(), seen.end(), model_.begin()).first - seen.begin();
}

void ImageModel::random_operations(int count, uint64_t alignment) {
  const uint64_t size = model_.size();
  for (int i = 0; i < count; ++i) {
    const uint64_t longest =
        std::min<uint64_t>(size, random_below(3) == 0 ? 8 * cluster_bytes_ : 2 * cluster_bytes_);
    uint64_t offset = random_below(size) / alignment * alignment;
    uint64_t length = random_below(longest) / alignment * alignment + alignment;
    if (random_below(8) == 0) length = size;  // to the end of the disk
    length = std::min(length, size - offset);
    switch (random_below(16)) {
      case 0:
      case 1:
        zero(offset, length);
        break;
      case 2:
        zero(offset, length, io::ZeroMode::no_hole);
        break;
      case 3:
      case 4:
        discard(offset, length);
        break;
      case 5: {
        const Bytes got = read(offset, length);
        EXPECT_TRUE(
            std::equal(got.begin(), got.end(), model_.begin() + static_cast<ptrdiff_t>(offset)))
            << "read @" << offset << "+" << length << " after " << i << " operations";
        break;
      }
      case 6:
        flush();
        break;
      case 7:
        random_concurrent_writes(12, alignment);
        break;
      default:
        write_random(offset, length);
    }
  }
}

void ImageModel::random_concurrent_writes(int count, uint64_t alignment) {
  const uint64_t size = model_.size();
  uint64_t at = random_below(size) / alignment * alignment;
  std::vector<std::pair<uint64_t, Bytes>> writes;
  for (int i = 0; i < count && at < size; ++i) {
    const uint64_t length =
        std::min(random_below(cluster_bytes_) / alignment * alignment + alignment, size - at);
    writes.emplace_back(at, random_content(length));
    at += length;
    if (random_below(4) == 0) at += random_below(cluster_bytes_) / alignment * alignment;
  }
  std::shuffle(writes.begin(), writes.end(), random_);
  auto all = [&](io::TaskScope& scope) -> io::Task<void> {
    for (auto& [offset, bytes] : writes) scope.spawn(write_task(offset, std::move(bytes)));
    co_return;
  };
  run(io::run_scoped(all));
}

int ImageModel::error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

}  // namespace qcow_test
