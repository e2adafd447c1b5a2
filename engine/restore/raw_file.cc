// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/raw_file.h"

#include <algorithm>
#include <array>

#include "qcow/format/aligned_bytes.h"

namespace engine {

io::Task<void> RawFile::read(uint64_t offset, std::span<std::byte> into) {
  return file_->read(offset, into);
}

io::Task<void> RawFile::write(uint64_t offset, io::Buffer from) {
  co_await file_->write(offset, from.bytes());
}

io::Task<void> RawFile::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  if (mode == io::ZeroMode::may_unmap && can_punch_) {
    can_punch_ = co_await file_->punch_hole(offset, length);
    if (can_punch_) co_return;
  }
  const qcow::AlignedBytes zeroes(std::min<uint64_t>(length, 1 << 20));
  for (uint64_t at = offset, end = offset + length; at < end;) {
    const uint64_t part = std::min<uint64_t>(end - at, zeroes.size());
    co_await file_->write(at, zeroes.bytes().first(part));
    at += part;
  }
}

io::Task<void> RawFile::discard(uint64_t offset, uint64_t length) {
  return write_zeroes(offset, length, io::ZeroMode::may_unmap);
}

io::Task<std::vector<io::Extent>> RawFile::extents(uint64_t, uint64_t length, size_t) {
  std::vector<io::Extent> all(1);
  all.front() = {.length = length, .zero = false, .depth = 1};
  co_return all;
}

}  // namespace engine
