// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/big_endian.h"
#include "qcow/format/compression.h"

namespace qcow {

namespace {

constexpr uint64_t kFirstReadBytes = 64 << 10;

void swap_entries(std::span<uint64_t> entries) {
  for (uint64_t& entry : entries) entry = io::swap_big_endian(entry);
}

}  // namespace

std::string image_name_of(std::string_view path) {
  return std::string(path.substr(path.rfind('/') + 1));
}

io::Task<Header> read_header(io::File& file, std::string image_name,
                             Header::DecodeOptions options) {
  const uint64_t file_bytes = co_await file.size();
  std::vector<std::byte> start(std::min(file_bytes, kFirstReadBytes));
  if (!start.empty()) co_await file.read(0, start);
  const uint64_t wanted = std::min(Header::peek_cluster_bytes(start), file_bytes);
  if (wanted > start.size()) {
    start.resize(wanted);
    co_await file.read(0, start);
  }
  co_return Header::decode(start, file_bytes, image_name, options);
}

io::Task<std::unique_ptr<Layer>> Layer::open(io::Runtime runtime, std::string path,
                                             OpenOptions options) {
  std::unique_ptr<io::File> file = co_await runtime.files.open(path, io::OpenMode::read_only);
  std::unique_ptr<Layer> layer(new Layer(runtime, std::move(path), std::move(file)));
  co_await layer->load(options);
  co_return layer;
}

Layer::Layer(io::Runtime runtime, std::string path, std::unique_ptr<io::File> file)
    : runtime_(runtime),
      path_(std::move(path)),
      name_(image_name_of(path_)),
      file_(std::move(file)) {}

io::Task<void> Layer::load(OpenOptions options) {
  if (options.lock) {
    lock_ = co_await ImageLock::acquire_patiently(runtime_, *file_, LockRole::reader, name_);
  }
  file_bytes_ = co_await file_->size();
  const Header::DecodeOptions decode_options{options.salvage};
  header_ = co_await read_header(*file_, name_, decode_options);
  geometry_ = header_.geometry();
  co_await read_l1();
}

io::Task<void> Layer::read_l1() {
  l1_.resize(geometry_.l1_entries());  // entries beyond the disk's size are ignored
  if (l1_.empty()) co_return;
  co_await file_->read(header_.l1_table.bytes, std::as_writable_bytes(std::span(l1_)));
  swap_entries(l1_);
}

io::Task<void> Layer::read_l2_entries(HostOffset table, uint64_t first, std::span<uint64_t> into) {
  co_await file_->read(table.bytes + first * 8, std::as_writable_bytes(into));
  swap_entries(into);
}

io::Task<void> Layer::read_data(HostOffset at, std::span<std::byte> into) {
  co_await file_->read(at.bytes, into);
}

io::Task<void> Layer::read_compressed(Mapping mapping, GuestOffset guest,
                                      std::span<std::byte> cluster) {
  std::vector<std::byte> stream(mapping.compressed_bytes());
  co_await file_->read(mapping.host.bytes, stream);
  if (!decompress(header_.compression, stream, cluster)) {
    throw FormatError(name_, fmt::format("corrupt compressed cluster at guest offset {}",
                                         geometry_.start_of(geometry_.cluster_of(guest)).bytes));
  }
}

}  // namespace qcow
