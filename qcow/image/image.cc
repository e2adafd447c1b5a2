// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "io/failure.h"
#include "io/log.h"
#include "io/planted_bug.h"

namespace qcow {

Image::Image(io::Runtime runtime, std::string path, ImageOptions options,
             std::unique_ptr<io::File> file)
    : path_(std::move(path)),
      parts_(runtime, image_name_of(path_), std::move(options), std::move(file),
             [this] { on_failure(); }),
      budget_(runtime.executor, std::max<uint64_t>(parts_.options.tuning.write_behind_bytes,
                                                   2 * io::BufferPool::kBufferBytesMax)) {}

Image::~Image() = default;

uint32_t Image::preferred_block_size() const {
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(parts_.geometry.cluster_bytes(), 4096, 2 << 20));
}

ImageCounters Image::counters() const {
  ImageCounters counters = parts_.counters;
  counters.file_bytes = parts_.allocator->end_bytes();
  return counters;
}

void Image::require_open(const char* verb, uint64_t offset, uint64_t length) const {
  parts_.failure.require_none();
  if (state_ != State::open) throw io::failure(verb, parts_.name, offset, length, EPERM);
}

/// Nothing more is begun, and who waits finds out.
void Image::on_failure() noexcept {
  parts_.write_behind->abandon();
  parts_.demand.urge();
  committer_->wake();
  relief_->wake();
  if (state_ != State::open || !parts_.options.on_failure) return;
  try {
    parts_.options.on_failure(parts_.failure.cause());
  } catch (const std::exception& untold) {
    io::log(io::LogLevel::error, "qcow: the failure of {} could not be reported: {}", parts_.name,
            untold.what());
  }
}

/// Makes a failure final, unless it refused the request before anything was changed.
void Image::refuse_or_fail(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const FormatError&) {  // a corrupt entry spoils its own range only
  } catch (const NoSpace&) {
    if (parts_.options.full_is_final) parts_.failure.fail(failure);
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    if (code != EPERM && code != ENOTSUP) parts_.failure.fail(failure);
  } catch (...) {
    parts_.failure.fail(failure);
  }
}

io::Task<void> Image::read(uint64_t offset, std::span<std::byte> into) {
  return reader_->read(offset, into);
}

io::Task<std::vector<io::Extent>> Image::extents(uint64_t offset, uint64_t length,
                                                 size_t count_max) {
  return reader_->extents(offset, length, count_max);
}

io::Task<void> Image::flush() {
  parts_.failure.require_none();
  if (state_ == State::sealed || state_ == State::closed) co_return;
  PLANTED_BUG(flush_while_queued, if (!parts_.write_behind->idle()) co_return )
  co_await committer_->flush();
}

}  // namespace qcow
